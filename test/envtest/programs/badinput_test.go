package programs

import (
	"fmt"
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

// badAnnotation sees that who makes or annotates a Pod is told which of its annotations is wrong.
func badAnnotation(t *testing.T, env *envtest.Environment, client kubernetes.Interface) {
	t.Helper()
	const want = `pods "bad" is forbidden: annotation simulated.flyball.dev/exit-code: 256 is out of range: an exit code is from 0 to 255`
	if err := kubectl(t, env, "apply", "-f", "testdata/badannotation.yaml"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("kubectl apply: %v, want an error that says %s", err, want)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "main"}}},
	}
	if _, err := client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := kubectl(t, env, "annotate", "pod/bad", "simulated.flyball.dev/exit-code=256"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("kubectl annotate: %v, want an error that says %s", err, want)
	}
	if err := kubectl(t, env, "annotate", "pod/bad", "simulated.flyball.dev/exit-code=255", "example.com/exit-code=256"); err != nil {
		t.Errorf("annotations that are right, or none of ours: %v", err)
	}
}

// kubectl fails with what the program printed to standard error, if its exit code is not 0.
func kubectl(t *testing.T, env *envtest.Environment, args ...string) error {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, env.KubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd := exec.Command(filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), append([]string{"--kubeconfig", kubeconfig}, args...)...)
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, &stderr)
	}
	return nil
}

// badDefinitions sees that kubectl says what is wrong with a definition, and that envtest does.
func badDefinitions(t *testing.T, env *envtest.Environment) {
	t.Helper()
	for file, want := range map[string]string{"testdata/noyaml.yaml": "noyaml.yaml", "testdata/noschema.yaml": "things.example.com"} {
		if err := kubectl(t, env, "apply", "-f", file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("kubectl apply -f %s: %v; want an error that names %s", file, err, want)
		}
	}
	if _, err := envtest.InstallCRDs(env.Config, envtest.CRDInstallOptions{Paths: []string{"testdata/noschema.yaml"}}); err == nil || !strings.Contains(err.Error(), "things.example.com") {
		t.Errorf("envtest installs a definition without a schema: %v, want an error that names things.example.com", err)
	}
}
