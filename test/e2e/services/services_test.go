// Package services tests the service proxy and DNS: the ways to reach a Service, from Pods and from the host.
package services

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"flyball.dev/test/e2e/internal/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// servers starts Pods that answer on HTTP 8080, TCP 9000 and UDP 9000, each with its name.
func servers(t *testing.T, ns string, names ...string) {
	t.Helper()
	for _, name := range names {
		cluster.Create(t, ns, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "server"}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{
				Args: []string{"serve", "http=:8080", "tcp=:9000", "udp=:9000"},
				ReadinessProbe: &corev1.Probe{
					PeriodSeconds: 1, FailureThreshold: 1, TimeoutSeconds: 10,
					ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080)}},
				},
			}}},
		})
	}
	for _, name := range names {
		cluster.Await(t, ns, name, cluster.Ready)
	}
}

// client starts a Pod to ask from.
func client(t *testing.T, ns, name string) {
	t.Helper()
	cluster.Run(t, ns, name, corev1.PodSpec{Containers: []corev1.Container{{Args: []string{"sleep", "inf"}}}})
	cluster.Await(t, ns, name, cluster.Ready)
}

func service(t *testing.T, ns, name string, spec corev1.ServiceSpec) *corev1.Service {
	t.Helper()
	if spec.Type != corev1.ServiceTypeExternalName {
		spec.Selector = map[string]string{"app": "server"}
		spec.Ports = []corev1.ServicePort{
			{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)},
			{Name: "tcp", Port: 90, TargetPort: intstr.FromInt32(9000)},
			{Name: "udp", Port: 90, TargetPort: intstr.FromInt32(9000), Protocol: corev1.ProtocolUDP},
		}
	}
	s, err := cluster.Client(t).CoreV1().Services(ns).Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// from runs a command of the toolbox in a Pod.
func from(t *testing.T, ns, pod string, args ...string) (string, error) {
	t.Helper()
	out, err := cluster.TryKubectl(t, "", append([]string{"exec", "-n", ns, pod, "--", "toolbox"}, args...)...)
	return strings.TrimSpace(out), err
}

// answers waits until the address, asked from the Pod, is answered by exactly the wanted servers.
func answers(t *testing.T, ns, pod, url string, want ...string) {
	t.Helper()
	cluster.Eventually(t, cluster.Soon, func() error {
		seen := map[string]bool{}
		for range 8 * len(want) {
			out, err := from(t, ns, pod, "dial", url, "x")
			if err != nil {
				return err
			}
			// TCP and UDP answer with the client's address too.
			name, _, _ := strings.Cut(out, " ")
			seen[name] = true
			if len(seen) >= len(want) {
				break
			}
		}
		for _, w := range want {
			if !seen[w] {
				return fmt.Errorf("%s is answered by %v, want %v", url, seen, want)
			}
		}
		if len(seen) > len(want) {
			return fmt.Errorf("%s is answered by %v, want %v", url, seen, want)
		}
		return nil
	})
}

func TestClusterIP(t *testing.T) {
	ns := cluster.Namespace(t)
	servers(t, ns, "one", "two")
	client(t, ns, "client")
	s := service(t, ns, "web", corev1.ServiceSpec{})
	ip := s.Spec.ClusterIP
	for _, url := range []string{"http://" + ip + "/", "tcp://" + ip + ":90", "udp://" + ip + ":90"} {
		answers(t, ns, "client", url, "one", "two")
	}
	t.Run("Names", func(t *testing.T) {
		for _, name := range []string{"web", "web." + ns, "web." + ns + ".svc", "web." + ns + ".svc.cluster.local", "web." + ns + ".svc.cluster.local."} {
			answers(t, ns, "client", "http://"+name+"/", "one", "two")
		}
		if got, err := from(t, ns, "client", "host", "web"); err != nil || got != ip {
			t.Errorf("web is %q, %v, want %s", got, err, ip)
		}
		if got, err := from(t, ns, "client", "host", "nosuch"); err == nil {
			t.Errorf("a name that nobody has is %q", got)
		}
		if got, err := from(t, ns, "client", "host", "kubernetes.default"); err != nil || got != "10.43.0.1" {
			t.Errorf("kubernetes.default is %q, %v", got, err)
		}
	})
	t.Run("SourceAddress", func(t *testing.T) {
		pod := cluster.Await(t, ns, "client", cluster.Ready)
		if got, err := from(t, ns, "client", "dial", "http://"+ip+"/client"); err != nil || got != pod.Status.PodIP {
			t.Errorf("the server sees %q, %v, want the Pod's own %s", got, err, pod.Status.PodIP)
		}
	})
	t.Run("Readiness", func(t *testing.T) {
		two := cluster.Await(t, ns, "two", cluster.Ready).Status.PodIP
		if _, err := cluster.Get(t.Context(), "http://"+two+":8080/break"); err != nil {
			t.Fatal(err)
		}
		onlyOne(t, ns, "http://"+ip+"/")
		if _, err := cluster.Get(t.Context(), "http://"+two+":8080/mend"); err != nil {
			t.Fatal(err)
		}
		answers(t, ns, "client", "http://"+ip+"/", "one", "two")
	})
	t.Run("Deleted", func(t *testing.T) {
		cluster.Kubectl(t, "delete", "pod", "-n", ns, "two")
		onlyOne(t, ns, "http://"+ip+"/")
		// A flow of UDP does not stick to a server that is gone.
		for range 5 {
			if got, err := from(t, ns, "client", "dial", "udp://"+ip+":90", "x"); err != nil || !strings.HasPrefix(got, "one ") {
				t.Errorf("UDP is answered by %q, %v", got, err)
			}
		}
		cluster.Kubectl(t, "delete", "pod", "-n", ns, "one")
		cluster.Eventually(t, cluster.Soon, func() error {
			began := time.Now()
			if _, err := from(t, ns, "client", "dial", "http://"+ip+"/"); err == nil {
				return errors.New("a Service without endpoints answers")
			}
			if time.Since(began) > 4*time.Second {
				return errors.New("a Service without endpoints does not refuse, it is silent")
			}
			return nil
		})
	})
}

// onlyOne waits until the server "two" does not answer any more.
func onlyOne(t *testing.T, ns, url string) {
	t.Helper()
	cluster.Eventually(t, cluster.Soon, func() error {
		for range 8 {
			if got, err := from(t, ns, "client", "dial", url); err != nil || got != "one" {
				return fmt.Errorf("%s is answered by %q, %w", url, got, err)
			}
		}
		return nil
	})
}

// TestHairpin lets a Pod reach itself through its Service.
func TestHairpin(t *testing.T) {
	ns := cluster.Namespace(t)
	servers(t, ns, "one")
	ip := service(t, ns, "web", corev1.ServiceSpec{}).Spec.ClusterIP
	answers(t, ns, "one", "http://"+ip+"/", "one")
	answers(t, ns, "one", "udp://"+ip+":90", "one")
}

func TestNodePort(t *testing.T) {
	ns := cluster.Namespace(t)
	servers(t, ns, "one", "two")
	client(t, ns, "client")
	s := service(t, ns, "web", corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort})
	node := cluster.Await(t, ns, "one", cluster.Ready).Status.HostIP
	http := net.JoinHostPort(node, strconv.Itoa(int(s.Spec.Ports[0].NodePort)))
	udp := net.JoinHostPort(node, strconv.Itoa(int(s.Spec.Ports[2].NodePort)))
	answers(t, ns, "client", "http://"+http+"/", "one", "two")
	answers(t, ns, "client", "udp://"+udp, "one", "two")
	t.Run("FromTheHost", func(t *testing.T) {
		for _, address := range []string{http, s.Spec.ClusterIP} {
			got, err := cluster.Get(t.Context(), "http://"+address+"/")
			if name := strings.TrimSpace(got); err != nil || name != "one" && name != "two" {
				t.Errorf("%s answers %q, %v", address, got, err)
			}
		}
	})
}

func TestSessionAffinity(t *testing.T) {
	ns := cluster.Namespace(t)
	servers(t, ns, "one", "two", "three")
	client(t, ns, "client")
	ip := service(t, ns, "web", corev1.ServiceSpec{SessionAffinity: corev1.ServiceAffinityClientIP}).Spec.ClusterIP
	var first string
	cluster.Eventually(t, cluster.Soon, func() (err error) {
		first, err = from(t, ns, "client", "dial", "http://"+ip+"/")
		return err
	})
	for range 15 {
		if got, err := from(t, ns, "client", "dial", "http://"+ip+"/"); err != nil || got != first {
			t.Errorf("%q answers, %v, and %q did before", got, err, first)
		}
	}
}

func TestHeadless(t *testing.T) {
	ns := cluster.Namespace(t)
	servers(t, ns, "one", "two")
	client(t, ns, "client")
	service(t, ns, "web", corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone})
	want := map[string]bool{}
	for _, name := range []string{"one", "two"} {
		want[cluster.Await(t, ns, name, cluster.Ready).Status.PodIP] = true
	}
	cluster.Eventually(t, cluster.Soon, func() error {
		got, err := from(t, ns, "client", "host", "web")
		if err != nil {
			return err
		}
		addresses := strings.Fields(got)
		for _, a := range addresses {
			if !want[a] {
				return fmt.Errorf("web is %v, want %v", addresses, want)
			}
		}
		if len(addresses) != len(want) {
			return fmt.Errorf("web is %v, want %v", addresses, want)
		}
		return nil
	})
}

func TestExternalName(t *testing.T) {
	ns := cluster.Namespace(t)
	servers(t, ns, "one")
	client(t, ns, "client")
	ip := service(t, ns, "web", corev1.ServiceSpec{}).Spec.ClusterIP
	service(t, ns, "alias", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "web." + ns + ".svc.cluster.local"})
	cluster.Eventually(t, cluster.Soon, func() error {
		if got, err := from(t, ns, "client", "host", "alias"); err != nil || got != ip {
			return fmt.Errorf("alias is %q, %w, want %s", got, err, ip)
		}
		return nil
	})
}

func TestHostPort(t *testing.T) {
	ns := cluster.Namespace(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	cluster.Run(t, ns, "web", corev1.PodSpec{Containers: []corev1.Container{{
		Args: []string{"serve", "http=:8080"}, Ports: []corev1.ContainerPort{{ContainerPort: 8080, HostPort: int32(port)}},
	}}})
	pod := cluster.Await(t, ns, "web", cluster.Ready)
	cluster.Eventually(t, cluster.Soon, func() error {
		got, err := cluster.Get(t.Context(), "http://"+net.JoinHostPort(pod.Status.HostIP, strconv.Itoa(port))+"/")
		if err != nil || got != "web\n" {
			return fmt.Errorf("the host's port answers %q, %w", got, err)
		}
		return nil
	})
}
