// Package chart tests the loops as others install them: by the Helm chart, with the real helm, into a cluster that leaves
// apps.flyball.dev to them.
package chart

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flyball.dev/test/e2e/internal/cluster"
)

// The server's own handling of apps.flyball.dev is switched off.
func TestMain(m *testing.M) { cluster.Main(m, "--config", "testdata/flyball.yaml") }

const (
	release   = "flyball"
	installed = "flyball-system"
	image     = "flyball.dev/flyball:latest" // what the chart's values say
)

// TestChart goes from a cluster that does not know our kinds, through an installation and an upgrade, to one whose kinds
// are left to nobody.
func TestChart(t *testing.T) {
	importImage(t)
	s := &story{T: t, namespace: cluster.Namespace(t)}
	for _, step := range []struct {
		name string
		run  func(*story)
	}{
		{"Before", before},
		{"Install", install},
		{"RollOver", rollOver},
		{"Wait", wait},
		{"Upgrade", upgrade},
		{"Uninstall", uninstall},
		{"FromALaptop", fromALaptop},
		{"InstallAgain", installAgain},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(&story{T: t, namespace: s.namespace}) }) {
			return
		}
	}
}

// story is one step in the life of the Deployment web.
type story struct {
	*testing.T
	namespace string
}

// importImage builds the loops' image from the program under test, and gives it to the node.
func importImage(t *testing.T) {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "flyball.tar")
	build := exec.CommandContext(t.Context(), "go", "run", "./hack/image", "-ref", image, "-out", archive, "linux/"+runtime.GOARCH+"="+cluster.Binary())
	build.Dir = cluster.Root()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the image: %v\n%s", err, out)
	}
	if out := strings.TrimSpace(flyball(t, "image", "import", archive)); out != image {
		t.Fatalf("importing the image printed %q, want %q", out, image)
	}
}

// flyball runs the program under test, which must not fail, and returns what it printed.
func flyball(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), cluster.Binary(), args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("flyball %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// helm runs the real helm and returns what it printed.
func (s *story) helm(args ...string) (string, error) {
	s.Helper()
	program := filepath.Join(cluster.Root(), "bin", "tools", "helm")
	if _, err := os.Stat(program); err != nil {
		s.Fatal("installing the chart needs helm: make bin/tools/helm")
	}
	cmd := exec.CommandContext(s.Context(), program, append(args, "--kubeconfig", cluster.Kubeconfig)...)
	cmd.Dir = cluster.Root()
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+s.TempDir(), "HELM_CONFIG_HOME="+s.TempDir(), "HELM_DATA_HOME="+s.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("helm %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func (s *story) mustHelm(args ...string) {
	s.Helper()
	if _, err := s.helm(args...); err != nil {
		s.Fatal(err)
	}
}

// manifest is a Deployment of ours.
func (s *story) manifest(version string) string {
	return `apiVersion: apps.flyball.dev/v1alpha1
kind: Deployment
metadata: {name: web, namespace: ` + s.namespace + `}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, version: ` + version + `}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: ` + cluster.Hello + `
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
`
}

func (s *story) pods() []corev1.Pod {
	s.Helper()
	list, err := cluster.Client(s.T).CoreV1().Pods(s.namespace).List(s.Context(), metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		s.Fatal(err)
	}
	return list.Items
}

// running waits until there are n Pods of a version, all Ready, and no others.
func (s *story) running(n int, version string) {
	s.Helper()
	cluster.Eventually(s.T, cluster.Soon, func() error {
		pods := s.pods()
		if len(pods) != n {
			return fmt.Errorf("there are %d Pods, want %d", len(pods), n)
		}
		for _, p := range pods {
			if p.Labels["version"] != version {
				return fmt.Errorf("pod %s is of version %s, want %s", p.Name, p.Labels["version"], version)
			}
			if err := cluster.Ready(&p); err != nil {
				return fmt.Errorf("pod %s: %w", p.Name, err)
			}
		}
		return nil
	})
}

// loops is the Deployment that the chart installs.
func (s *story) loops() *appsv1.Deployment {
	s.Helper()
	d, err := cluster.Client(s.T).AppsV1().Deployments(installed).Get(s.Context(), release, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return d
}

// loopsAreReady checks what helm has waited for.
func (s *story) loopsAreReady(n int32) {
	s.Helper()
	if d := s.loops(); d.Status.ObservedGeneration != d.Generation || d.Status.UpdatedReplicas != n || d.Status.Replicas != n || d.Status.AvailableReplicas != n {
		s.Errorf("helm has waited, and the Deployment of the loops is not ready: %+v", d.Status)
	}
}

// unknown is what kubectl says of a kind that the cluster does not have, the second if it remembers one at this address that did.
var unknown = regexp.MustCompile("no matches for kind|could not find the requested resource")

func before(s *story) {
	if out, err := cluster.TryKubectl(s.T, s.manifest("one"), "apply", "-f", "-"); err == nil || !unknown.MatchString(err.Error()) {
		s.Fatalf("a cluster without our kinds took one: %s %v", out, err)
	}
	// What the server does reconcile is served as ever.
	cluster.Kubectl(s.T, "create", "deployment", "theirs", "-n", s.namespace, "--image", cluster.Hello)
	if out := flyball(s.T, "rollout", "status", "deployment/theirs", "-n", s.namespace); !strings.Contains(out, "successfully rolled out") {
		s.Errorf("flyball rollout status: %s", out)
	}
}

func install(s *story) {
	s.mustHelm("install", release, "config/helm/flyball", "--namespace", installed, "--create-namespace", "--wait", "--timeout", "2m")
	s.loopsAreReady(1)
}

func rollOver(s *story) {
	cluster.KubectlInput(s.T, s.manifest("one"), "apply", "-f", "-")
	s.running(3, "one")
	cluster.KubectlInput(s.T, s.manifest("two"), "apply", "-f", "-")
	if out := flyball(s.T, "rollout", "status", "fdeploy/web", "-n", s.namespace, "--timeout", "1m"); !strings.Contains(out, "successfully rolled out") {
		s.Errorf("flyball rollout status: %s", out)
	}
	s.running(3, "two")
	if out := flyball(s.T, "rollout", "history", "fdeploy/web", "-n", s.namespace); strings.Count(out, "\n") != 4 {
		s.Errorf("two revisions are expected, and the history is\n%s", out)
	}
	flyball(s.T, "rollout", "undo", "fdeploy/web", "-n", s.namespace)
	s.running(3, "one")
}

// wait: helm waits for a chart with a Deployment of ours until that is rolled out, and says so when it fails.

func wait(s *story) {
	chart := s.chart("waiting", strings.ReplaceAll(s.manifest("one"), "web", "waited"))
	s.mustHelm("install", "waiting", chart, "--namespace", s.namespace, "--wait", "--timeout", "1m")
	waited := func() (updated, available string) {
		status := cluster.Kubectl(s.T, "get", "fdeploy", "waited", "-n", s.namespace, "-o", "jsonpath={.status.updatedReplicas} {.status.availableReplicas}")
		updated, available, _ = strings.Cut(status, " ")
		return updated, available
	}
	if updated, available := waited(); updated != "3" || available != "3" {
		s.Errorf("helm install --wait came back at %s Pods, %s available", updated, available)
	}
	chart = s.chart("waiting", strings.ReplaceAll(s.manifest("two"), "web", "waited"))
	s.mustHelm("upgrade", "waiting", chart, "--namespace", s.namespace, "--wait", "--timeout", "1m")
	if updated, available := waited(); updated != "3" || available != "3" {
		s.Errorf("helm upgrade --wait came back at %s new Pods, %s available", updated, available)
	}
	bad := strings.Replace(strings.ReplaceAll(s.manifest("three"), "web", "waited"), "replicas: 3", "replicas: 3\n  progressDeadlineSeconds: 2", 1)
	bad = strings.Replace(bad, cluster.Hello, "flyball.dev/nosuch:1", 1)
	if out, err := s.helm("upgrade", "waiting", s.chart("waiting", bad), "--namespace", s.namespace, "--wait", "--timeout", "1m"); err == nil {
		s.Errorf("helm upgrade --wait was content with a rollout that failed:\n%s", out)
	}
	s.mustHelm("uninstall", "waiting", "--namespace", s.namespace, "--wait", "--timeout", "1m")
}

// chart makes a chart of one manifest.
func (s *story) chart(name, manifest string) string {
	s.Helper()
	dir := s.TempDir()
	for file, content := range map[string]string{"Chart.yaml": "apiVersion: v2\nname: " + name + "\nversion: 0.1.0\n", "templates/all.yaml": manifest} {
		file = filepath.Join(dir, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o750), os.WriteFile(file, []byte(content), 0o600)); err != nil {
			s.Fatal(err)
		}
	}
	return dir
}

// upgrade replaces the loops while they roll a Deployment over.
func upgrade(s *story) {
	old := s.loops()
	dir := s.TempDir()
	s.mustHelm("package", "config/helm/flyball", "--version", "9.0.0", "--destination", dir)
	cluster.KubectlInput(s.T, s.manifest("three"), "apply", "-f", "-")
	s.mustHelm("upgrade", release, filepath.Join(dir, "flyball-9.0.0.tgz"), "--namespace", installed, "--wait", "--timeout", "2m",
		"--set", "replicas=2,extraArgs={--verbosity=1}")
	s.loopsAreReady(2)
	if now := s.loops(); now.UID != old.UID || now.Labels["helm.sh/chart"] != "flyball-9.0.0" {
		s.Errorf("it is not upgraded: labels %v", now.Labels)
	}
	s.running(3, "three")
	cluster.KubectlInput(s.T, s.manifest("four"), "apply", "-f", "-")
	s.running(3, "four")
}

// uninstall leaves everybody's Deployments, and nobody who reconciles them.
func uninstall(s *story) {
	s.mustHelm("uninstall", release, "--namespace", installed, "--wait", "--timeout", "1m")
	cluster.Eventually(s.T, cluster.Soon, func() error {
		_, err := cluster.Client(s.T).AppsV1().Deployments(installed).Get(s.Context(), release, metav1.GetOptions{})
		return cluster.Gone(err)
	})
	cluster.Eventually(s.T, cluster.Soon, func() error {
		pods, err := cluster.Client(s.T).CoreV1().Pods(installed).List(s.Context(), metav1.ListOptions{})
		if err == nil && len(pods.Items) > 0 {
			err = fmt.Errorf("%d Pods of the loops are left", len(pods.Items))
		}
		return err
	})
	s.running(3, "four")
	cluster.Kubectl(s.T, "scale", "fdeploy/web", "-n", s.namespace, "--replicas=1")
	// There is no event for what does not happen.
	time.Sleep(time.Second)
	s.running(3, "four")
}

// fromALaptop runs the loops here, as `make run` does.
func fromALaptop(s *story) {
	cmd := exec.CommandContext(s.Context(), cluster.Binary(), "controllers", "--kubeconfig", cluster.Kubeconfig)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil || log.Len() > 0 {
			s.Errorf("the loops ended with %v, and said:\n%s", err, &log)
		}
	}()
	s.running(1, "four")
}

// installAgain finds the kinds, and what was made of them, as the last release left them.
func installAgain(s *story) {
	s.mustHelm("install", release, "config/helm/flyball", "--namespace", installed, "--wait", "--timeout", "2m")
	cluster.Kubectl(s.T, "scale", "fdeploy/web", "-n", s.namespace, "--replicas=2")
	s.running(2, "four")
	cluster.Kubectl(s.T, "delete", "fdeploy/web", "-n", s.namespace)
	s.running(0, "")
	s.mustHelm("uninstall", release, "--namespace", installed, "--wait", "--timeout", "1m")
}
