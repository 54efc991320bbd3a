package programs

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

func TestBadMode(t *testing.T) {
	programs := assets(t)
	for mode, want := range map[string]string{
		"controllers,pods=3":     `"pods=3" is unknown`,
		"controllers,nodes=1001": `"1001" nodes are not between 1 and 1000`,
		"nodes=3":                "nodes need controllers",
	} {
		bad := []string{"XDG_CACHE_HOME=" + t.TempDir(), "FLYBALL_ENVTEST=" + mode}
		if out, stderr, err := flyball(t, bad, "envtest"); err == nil || out != "" || !strings.Contains(stderr, want) {
			t.Errorf("flyball envtest: error %v, output %q, standard error %q; want one that says %s", err, out, stderr, want)
		}
		for _, name := range []string{"etcd", "kube-apiserver"} {
			dir := t.TempDir()
			var stderr strings.Builder
			cmd := exec.Command(filepath.Join(programs, name))
			cmd.Env, cmd.Dir, cmd.Stderr = append(os.Environ(), bad...), dir, &stderr
			if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), want) {
				t.Errorf("%s: error %v, standard error %q; want one that says %s", name, err, &stderr, want)
			}
			if files, _ := os.ReadDir(dir); len(files) > 0 {
				t.Errorf("%s left %v although it must not have started", name, files)
			}
		}
	}
}

// badAnnotation sees that a Pod says which of its annotations is wrong: nothing that could end comes to know of it.
func badAnnotation(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	pods := client.CoreV1().Pods("default")
	_, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "bad", Annotations: map[string]string{"simulated.flyball.dev/exit-code": "256"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "main"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const want = "annotation simulated.flyball.dev/exit-code: 256 is out of range"
	eventually(t, "the Pod's status names the annotation", func(ctx context.Context) (bool, error) {
		pod, err := pods.Get(ctx, "bad", metav1.GetOptions{})
		if err != nil || len(pod.Status.ContainerStatuses) == 0 {
			return false, err
		}
		waiting := pod.Status.ContainerStatuses[0].State.Waiting
		return waiting != nil && strings.Contains(waiting.Message, want), nil
	})
	eventually(t, "an Event names the annotation", func(ctx context.Context) (bool, error) {
		events, err := client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=bad,type=Warning"})
		if err != nil {
			return false, err
		}
		for _, e := range events.Items {
			if strings.Contains(e.Message, want) {
				return true, nil
			}
		}
		return false, nil
	})
}

// badDefinitions sees that kubectl says what is wrong with a definition, and that envtest does.
func badDefinitions(t *testing.T, env *envtest.Environment) {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, env.KubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"testdata/noyaml.yaml": "noyaml.yaml", "testdata/noschema.yaml": "things.example.com"} {
		var stderr strings.Builder
		cmd := exec.Command(filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), "--kubeconfig", kubeconfig, "apply", "-f", file)
		cmd.Stderr = &stderr
		if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), want) {
			t.Errorf("kubectl apply -f %s: error %v, standard error %q; want one that names %s", file, err, &stderr, want)
		}
	}
	if _, err := envtest.InstallCRDs(env.Config, envtest.CRDInstallOptions{Paths: []string{"testdata/noschema.yaml"}}); err == nil || !strings.Contains(err.Error(), "things.example.com") {
		t.Errorf("envtest installs a definition without a schema: %v, want an error that names things.example.com", err)
	}
}
