package flyballtest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flyball.dev/flyballtest"
)

// programPath is where the program is that the other tests find by themselves.
func programPath(t *testing.T) string {
	t.Helper()
	for _, path := range []string{
		filepath.Join(os.Getenv("FLYBALL_ASSETS"), "flyball"), filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kube-apiserver"), "../bin/flyball",
	} {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	t.Fatal("there is no bin/flyball: run make build")
	return ""
}

// TestOptions uses the options that no other test does.
func TestOptions(t *testing.T) {
	program, logs := programPath(t), filepath.Join(t.TempDir(), "logs")
	t.Setenv("FLYBALL_ASSETS", t.TempDir()) // nothing is found there
	t.Setenv("KUBEBUILDER_ASSETS", "")
	files := fstest.MapFS{"deep/down/settings.json": {Data: []byte(`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}`)}}
	cluster, err := flyballtest.New(flyballtest.WithoutControllers(), flyballtest.WithProgram(program), flyballtest.WithManifestsFS(files),
		flyballtest.WithLogDir(logs), flyballtest.WithVerbosity(3), flyballtest.WithStartTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	client, _ := clients(t, cluster)
	_, err = client.CoreV1().ConfigMaps("default").Get(t.Context(), "settings", metav1.GetOptions{})
	if err != nil {
		t.Errorf("what the file system has was not applied: %v", err)
	}
	var shown strings.Builder
	cluster.WriteLogs(&shown)
	for range 2 { // the second time does nothing
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if !strings.Contains(shown.String(), "the end of the log of "+name) {
			t.Errorf("the log of %s is not shown:\n%s", name, shown.String())
		}
		log, err := os.ReadFile(filepath.Join(logs, name+".log"))
		if err != nil {
			t.Error(err)
		}
		if requests := "httplog.go"; name == "kube-apiserver" && !strings.Contains(string(log), requests) {
			t.Errorf("with verbosity 3 the log of %s has no requests", name)
		}
	}
	if _, err := cluster.Checkpoint(); err == nil {
		t.Error("a cluster that has stopped takes a checkpoint")
	}
}
