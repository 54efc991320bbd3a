// Package pods tests what a Pod's specification asks of the node agent: what its containers see, when they run, and what
// its status says.
package pods

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flyball.dev/test/e2e/internal/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

func container(args ...string) corev1.Container { return corev1.Container{Args: args} }

func pod(containers ...corev1.Container) corev1.PodSpec {
	return corev1.PodSpec{Containers: containers}
}

// has fails the test for each wanted line that the output lacks.
func has(t *testing.T, output string, want ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(output), "\n")
	for _, w := range want {
		if !slices.Contains(lines, w) {
			t.Errorf("there is no line %q in:\n%s", w, output)
		}
	}
}

// sources creates the ConfigMap and the Secret that Pods refer to.
func sources(t *testing.T, ns string) {
	t.Helper()
	c := cluster.Client(t).CoreV1()
	_, err := c.ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: map[string]string{"color": "red", "size": "large"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Secrets(ns).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "secrets"}, StringData: map[string]string{"password": "hunter2"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, url string) {
	t.Helper()
	cluster.Eventually(t, cluster.Soon, func() error {
		_, err := cluster.Get(t.Context(), url)
		return err
	})
}

func restarted(times int32) func(*corev1.Pod) error {
	return func(p *corev1.Pod) error {
		if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].RestartCount < times {
			return errors.New("its container was not started again")
		}
		return nil
	}
}

func TestEnvironment(t *testing.T) {
	ns := cluster.Namespace(t)
	sources(t, ns)
	c := container("env")
	field := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	c.Env = []corev1.EnvVar{
		{Name: "PLAIN", Value: "one"},
		{Name: "EXPANDED", Value: "$(PLAIN) and $$(PLAIN)"},
		{Name: "NAME", ValueFrom: field("metadata.name")},
		{Name: "NODE", ValueFrom: field("spec.nodeName")},
		{Name: "ADDRESS", ValueFrom: field("status.podIP")},
		{Name: "COLOR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Key: "color"}}},
		{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "secrets"}, Key: "password"}}},
		{Name: "LIMIT", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory"}}},
	}
	c.EnvFrom = []corev1.EnvFromSource{{Prefix: "SET_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}}
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
	out := cluster.Output(t, ns, "env", pod(c))
	has(t, out, "PLAIN=one", "EXPANDED=one and $(PLAIN)", "NAME=env", "COLOR=red", "PASSWORD=hunter2", "LIMIT=67108864",
		"SET_color=red", "SET_size=large", "KUBERNETES_SERVICE_HOST=10.43.0.1", "KUBERNETES_SERVICE_PORT=443", "HOSTNAME=env")
	ip := cluster.Await(t, ns, "env", func(*corev1.Pod) error { return nil }).Status.PodIP
	has(t, out, "ADDRESS="+ip)
	if addr, err := netip.ParseAddr(ip); err != nil || !netip.MustParsePrefix("10.42.0.0/16").Contains(addr) {
		t.Errorf("the Pod's address is %q", ip)
	}
}

func TestCommandAndArgs(t *testing.T) {
	ns := cluster.Namespace(t)
	c := corev1.Container{Command: []string{"/bin/echo", "$(WORD)"}, Args: []string{"two", "$(WORD)"}, Env: []corev1.EnvVar{{Name: "WORD", Value: "one"}}}
	has(t, cluster.Output(t, ns, "command", pod(c)), "one two one")
}

// TestTerminationMessage reads what a container leaves for its status.
func TestTerminationMessage(t *testing.T) {
	ns := cluster.Namespace(t)
	spec := pod(container("write", "/dev/termination-log", "all is well"))
	spec.RestartPolicy = corev1.RestartPolicyNever
	cluster.Run(t, ns, "message", spec)
	p := cluster.Await(t, ns, "message", cluster.Phase(corev1.PodSucceeded))
	if got := strings.TrimSpace(p.Status.ContainerStatuses[0].State.Terminated.Message); got != "all is well" {
		t.Errorf("the message is %q", got)
	}
}
