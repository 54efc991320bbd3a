// Package programs tests Flyball's kube-apiserver, etcd and kubectl as test suites use them: through controller-runtime's
// envtest. It needs bin/flyball and no root.
package programs

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// patience is how long a condition may take on a machine that does other things.
const patience = 2 * time.Minute

// flyball runs bin/flyball and returns what it prints.
func flyball(t *testing.T, env []string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	var out, errOut strings.Builder
	cmd := exec.Command(filepath.Join(root, "bin", "flyball"), args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return strings.TrimSpace(out.String()), errOut.String(), err
}

// assets is a folder of its own.
func assets(t *testing.T) string {
	t.Helper()
	dir, stderr, err := flyball(t, []string{"XDG_CACHE_HOME=" + t.TempDir(), "FLYBALL_ENVTEST="}, "envtest")
	if err != nil {
		t.Fatalf("flyball envtest: %v: %s", err, stderr)
	}
	return dir
}

// start starts envtest in a mode.
func start(t *testing.T, mode string) (*envtest.Environment, *rest.Config) {
	t.Helper()
	t.Setenv("KUBEBUILDER_ASSETS", assets(t))
	t.Setenv("FLYBALL_ENVTEST", mode)
	env := &envtest.Environment{ControlPlaneStartTimeout: patience}
	config, err := env.Start()
	if err != nil {
		t.Fatalf("starting envtest: %v", err)
	}
	t.Cleanup(func() { _ = env.Stop() }) // which does nothing the second time
	return env, config
}

func TestFolder(t *testing.T) {
	cache := "XDG_CACHE_HOME=" + t.TempDir()
	var calls sync.WaitGroup
	dirs := make([]string, 4)
	for i := range dirs {
		calls.Go(func() { dirs[i], _, _ = flyball(t, []string{cache, "FLYBALL_ENVTEST="}, "envtest") })
	}
	calls.Wait()
	for _, dir := range dirs {
		if dir == "" || dir != dirs[0] || !filepath.IsAbs(dir) {
			t.Fatalf("calls at the same time print %q, want the same absolute path each time", dirs)
		}
	}
	link := filepath.Join(dirs[0], "etcd")
	want, err := os.Readlink(link)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", link); err != nil {
		t.Fatal(err)
	}
	if _, stderr, err := flyball(t, []string{cache, "FLYBALL_ENVTEST="}, "envtest"); err != nil {
		t.Fatalf("flyball envtest: %v: %s", err, stderr)
	}
	if got, _ := os.Readlink(link); got != want {
		t.Errorf("a stale link leads to %q, want %q", got, want)
	}
}

// envtest decides by the help which flags it passes. It is answered from a file, which must say the same.
func TestHelp(t *testing.T) {
	dir := assets(t)
	for name, flag := range map[string]string{"etcd": "--unsafe-no-fsync", "kube-apiserver": "--service-account-issuer"} {
		quick, err := exec.Command(filepath.Join(dir, name), "--help").CombinedOutput()
		if err != nil {
			t.Errorf("%s --help: %v", name, err)
		}
		slow, err := exec.Command(filepath.Join(dir, name), "-h").CombinedOutput()
		if err != nil {
			t.Errorf("%s -h: %v", name, err)
		}
		if string(quick) != string(slow) || !strings.Contains(string(quick), flag) || strings.Contains(string(quick), "--insecure-port") {
			t.Errorf("%s --help prints %d bytes, -h %d; want the same, with %s and without --insecure-port", name, len(quick), len(slow), flag)
		}
	}
}

func TestStopsWithWatchesOpen(t *testing.T) {
	env, config := start(t, "")
	client := kubernetes.NewForConfigOrDie(config)
	for range 3 {
		w, err := client.CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
	}
	began := time.Now()
	if err := env.Stop(); err != nil {
		t.Errorf("stopping with watches open: %v", err)
	}
	if took := time.Since(began); took > 15*time.Second { // a second each on a machine that has nothing else to do; envtest kills them after 20
		t.Errorf("stopping took %v with watches open", took)
	}
}

// Without the variable nobody but the test touches an object.
func TestPlain(t *testing.T) {
	_, config := start(t, "")
	client := kubernetes.NewForConfigOrDie(config)
	if _, err := client.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("getting a service account that only a controller makes: %v, want NotFound", err)
	}
}

func TestControllersAndNodes(t *testing.T) {
	env, config := start(t, "controllers,nodes=2")
	client := kubernetes.NewForConfigOrDie(config)
	if _, err := client.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
		t.Errorf("getting the default service account as soon as envtest has started: %v", err)
	}
	labels := map[string]string{"app": "web"}
	_, err := client.AppsV1().Deployments("default").Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To[int32](2), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web"}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Deployment has two available Pods", func(ctx context.Context) (bool, error) {
		d, err := client.AppsV1().Deployments("default").Get(ctx, "web", metav1.GetOptions{})
		return err == nil && d.Status.AvailableReplicas == 2, nil
	})
	if err := client.AppsV1().Deployments("default").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its Pods are collected and gone", func(ctx context.Context) (bool, error) {
		pods, err := client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		return err == nil && len(pods.Items) == 0, nil
	})
	badAnnotation(t, env, client)
	badDefinitions(t, env)
}

func eventually(t *testing.T, what string, condition wait.ConditionWithContextFunc) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, patience, true, condition); err != nil {
		t.Fatalf("waiting until %s: %v", what, err)
	}
}
