// Package join tests that a second machine becomes a node: with a token and a certificate of its own, with Pods that
// reach and are reached, over restarts, and until it leaves. The second machine is made of namespaces (test/machine).
package join

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"flyball.dev/test/e2e/internal/cluster"
)

func TestMain(m *testing.M) {
	if os.Getenv(leftoversVariable) != "" {
		listLeftovers()
		os.Exit(0)
	}
	cluster.MainWithout(m)
}

// TestJoin is one story, told in order.
func TestJoin(t *testing.T) {
	if err := prepare(cluster.DataDir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, log := range []string{"flyball.log", "flyball.err"} {
				out, _ := there("cat", filepath.Join("/var/lib/flyball/log", log))
				fmt.Printf("==> %s of %s <==\n%s\n", log, second, out)
			}
		}
		if out, err := exec.Command(program, "remove", second).CombinedOutput(); err != nil {
			t.Errorf("removing the second machine: %v: %s", err, out)
		}
		if t.Failed() {
			return // the server's side of it is looked at before it goes
		}
		if err := cluster.Down(); err != nil {
			t.Error(err)
		}
		cluster.NothingLeft(t)
	})
	before := leftovers(t)
	if err := cluster.Up("--node-name", "server", "--node-ip", serverIP); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Refused", testRefused},
		{"Joined", testJoined},
		{"Certificates", testCertificates},
		{"Pods", testPods},
		{"RestartWithoutToken", testRestart},
		{"Left", testLeft},
	} {
		if !t.Run(step.name, step.run) {
			return
		}
	}
	for _, what := range leftovers(t) {
		if !slices.Contains(before, what) {
			t.Errorf("left behind on the second machine: %s", what)
		}
	}
}

// testRefused: whatever is wrong is told at once, and nothing is started.
func testRefused(t *testing.T) {
	good := token(t)
	with := func(server, token string) []string {
		return []string{"agent", "--node-name", second, "--server", server, "--token", token}
	}
	server, whole := good[2], good[4]
	id, rest, _ := strings.Cut(whole, ".")
	secret, hash, _ := strings.Cut(rest, ".")

	refused(t, []string{"malformed", "flyball token create"}, with(server, "nonsense")...)
	refused(t, []string{"lacks the hash", "flyball token create"}, with(server, id+"."+secret)...)
	refused(t, []string{"another cluster", hash}, with(server, id+"."+secret+"."+strings.Repeat("0", 64))...)
	refused(t, []string{"does not accept the token " + id}, with(server, id+".0000000000000000."+hash)...)
	refused(t, []string{"reaching the server", "https://" + serverIP + ":6444"}, with("https://"+serverIP+":6444", whole)...)
	refused(t, []string{"no scheme", serverIP + ":6443", "--server takes https://HOST:PORT"}, with(serverIP+":6443", whole)...)
	refused(t, []string{"after its host and port", "--server takes https://HOST:PORT"}, with(server+"/api", whole)...)
	refused(t, []string{serverIP + " is no address of this machine", "--node-ip", secondIP}, append(with(server, whole), "--node-ip", serverIP)...)
	refused(t, []string{"a token is needed", "flyball token create"}, "agent", "--server", server)
	refused(t, []string{"joining as server", "is Ready", "--node-name"}, append(good, "--node-name", "server")...)

	short := token(t, "--ttl", "1s")
	cluster.Eventually(t, cluster.Soon, func() error {
		out, err := exec.Command(cluster.Binary(), "token", "list").CombinedOutput()
		if err == nil && strings.Contains(string(out), short[4][:6]) {
			err = errors.New("the token has not expired yet")
		}
		return err
	})
	refused(t, []string{"does not accept the token", "expired"}, append(short, "--node-name", second)...)
	if out, err := exec.Command(cluster.Binary(), "token", "delete", id).CombinedOutput(); err != nil {
		t.Fatalf("deleting a token: %v: %s", err, out)
	}
	unknown(t, id+"."+secret)
	refused(t, []string{"does not accept the token " + id, "deleted"}, append(good, "--node-name", second)...)

	if out, err := there("ls", "/var/lib/flyball/agent/cluster.yaml"); err == nil {
		t.Errorf("it has joined nevertheless: %s", out)
	}
	nodes, err := cluster.Client(t).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 1 {
		t.Errorf("there are %d nodes (%v), want the server's alone", len(nodes.Items), err)
	}
}

// unknown waits until the API server does not accept a bootstrap token any more: it remembers the good ones for some
// seconds.
func unknown(t *testing.T, token string) {
	t.Helper()
	admin := cluster.RESTConfig(t)
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host: admin.Host, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: admin.CAData},
	})
	if err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, cluster.Soon, func() error {
		if _, err := client.CoreV1().Nodes().Get(t.Context(), second, metav1.GetOptions{}); !apierrors.IsUnauthorized(err) {
			return fmt.Errorf("the API server still accepts the token (%w)", err)
		}
		return nil
	})
}

func testJoined(t *testing.T) {
	out := flyball(t, append(token(t), "--node-name", second, "--detach")...)
	if !strings.Contains(out, "Node "+second+" is Ready") {
		t.Errorf("it printed %q", out)
	}
	node, err := cluster.Client(t).CoreV1().Nodes().Get(t.Context(), second, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := node.Status.Addresses[0]; got.Type != corev1.NodeInternalIP || got.Address != secondIP {
		t.Errorf("its address is %v, want %s, which the server is reached from", got, secondIP)
	}
	flyball(t, "status")
	flyball(t, "check")
	refused(t, []string{"already running"}, "agent")
	refused(t, []string{second, "flyball agent"}, "up")
	file, err := cluster.ToolboxArchive()
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(file)
	flyball(t, "image", "import", file)
	if err := cluster.Flyball("image", "import", file); err != nil {
		t.Fatal(err)
	}
}

// testCertificates: the node has the certificates that it asked for, and gets no others.
func testCertificates(t *testing.T) {
	requests, err := cluster.Client(t).CertificatesV1().CertificateSigningRequests().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	issued := map[string]string{}
	for _, r := range requests.Items {
		if len(r.Status.Certificate) > 0 {
			issued[r.Spec.SignerName] = r.Spec.Username
		}
	}
	if by := issued[certificatesv1.KubeAPIServerClientKubeletSignerName]; !strings.HasPrefix(by, "system:bootstrap:") {
		t.Errorf("the client certificate was requested by %q, want by a token", by)
	}
	if by := issued[certificatesv1.KubeletServingSignerName]; by != "system:node:"+second {
		t.Errorf("the serving certificate was requested by %q, want by the node", by)
	}
	// The API server checks the certificate of the node agent.
	if out := cluster.Kubectl(t, "get", "--raw", "/api/v1/nodes/"+second+"/proxy/healthz"); out != "ok" {
		t.Errorf("the node agent's health is %q", out)
	}
	kubeconfig := "--kubeconfig=/var/lib/flyball/agent/kubelet.kubeconfig"
	if out, err := there(cluster.Binary(), "kubectl", kubeconfig, "auth", "whoami"); err != nil || !strings.Contains(out, "system:node:"+second) {
		t.Errorf("the second machine is %s (%v)", out, err)
	}
	for _, forbidden := range [][]string{{"get", "secrets", "-A"}, {"get", "pods", "-A"}, {"delete", "node", "server"}, {"annotate", "node", "server", "a=b"}} {
		if out, err := there(append([]string{cluster.Binary(), "kubectl", kubeconfig}, forbidden...)...); err == nil || !strings.Contains(out, "orbidden") {
			t.Errorf("a node may %v: %s (%v)", forbidden, out, err)
		}
	}
}

// testPods: Pods of both nodes reach each other by address, Service and name, and the API server reaches theirs.
func testPods(t *testing.T) {
	ns := cluster.Namespace(t)
	places := map[string]string{"here": "server", "there": second}
	for name, node := range places {
		cluster.Run(t, ns, name, corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Args: []string{"serve", "http=:8080", "udp=:9000"}}}})
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeNodePort, Selector: map[string]string{"app": name},
			Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
		}}
		if _, err := cluster.Client(t).CoreV1().Services(ns).Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for name := range places {
		pod := cluster.Await(t, ns, name, cluster.Ready)
		service, err := cluster.Client(t).CoreV1().Services(ns).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for from := range places {
			for _, url := range []string{
				"http://" + pod.Status.PodIP + ":8080/", "udp://" + pod.Status.PodIP + ":9000",
				"http://" + service.Spec.ClusterIP + "/", "http://" + name + "." + ns + ".svc.cluster.local/",
			} {
				answers(t, url, name, func() (string, error) {
					return cluster.TryKubectl(t, "", "exec", "-n", ns, from, "--", "toolbox", "dial", url, "x")
				})
			}
		}
		// From outside of the cluster, through the address of either machine.
		for _, ip := range []string{serverIP, secondIP} {
			url := "http://" + net.JoinHostPort(ip, strconv.Itoa(int(service.Spec.Ports[0].NodePort))) + "/"
			answers(t, url, name, func() (string, error) { return cluster.Get(t.Context(), url) })
		}
		if out := cluster.Kubectl(t, "exec", "-n", ns, name, "--", "toolbox", "hostname"); strings.TrimSpace(out) != name {
			t.Errorf("exec in %s printed %q", name, out)
		}
		cluster.Kubectl(t, "logs", "-n", ns, name)
	}
	// A Pod keeps its address on the way to the other node: what it is answered ends with it.
	here := cluster.Await(t, ns, "here", cluster.Ready)
	there := cluster.Await(t, ns, "there", cluster.Ready)
	out, err := cluster.TryKubectl(t, "", "exec", "-n", ns, "here", "--", "toolbox", "dial", "udp://"+there.Status.PodIP+":9000", "x")
	if err != nil || !strings.Contains(out, here.Status.PodIP) {
		t.Errorf("the other node's Pod sees %q (%v), want it to see %s", out, err, here.Status.PodIP)
	}
}

func answers(t *testing.T, url, want string, ask func() (string, error)) {
	t.Helper()
	cluster.Eventually(t, cluster.Soon, func() error {
		out, err := ask()
		if err == nil && !strings.HasPrefix(strings.TrimSpace(out), want) {
			err = fmt.Errorf("%s is answered with %q, want by %s", url, out, want)
		}
		return err
	})
}

// testRestart: the node agent is killed, and starts again without a token; its Pods run on. That its serving certificate was
// destroyed meanwhile, it gets over.
func testRestart(t *testing.T) {
	ns := cluster.Namespace(t)
	cluster.Run(t, ns, "steady", corev1.PodSpec{NodeName: second, Containers: []corev1.Container{{Args: []string{"sleep", "inf"}}}})
	before := cluster.Await(t, ns, "steady", cluster.Ready)
	if out, err := there("sh", "-c", "kill -9 $(cat /run/flyball/flyball-agent.pid)"); err != nil {
		t.Fatal(err, out)
	}
	cluster.Eventually(t, cluster.Soon, func() error {
		if _, err := there(cluster.Binary(), "status"); err == nil {
			return errors.New("it still runs")
		}
		return nil
	})
	if out, err := there("sh", "-c", "cd /var/lib/flyball/agent && grep -qF 'nodeIP: "+secondIP+"' cluster.yaml && : > kubelet-server-current.pem"); err != nil {
		t.Fatal("its address is not kept, or it has no serving certificate:", err, out)
	}
	if out := flyball(t, "agent", "--detach"); !strings.Contains(out, "Node "+second+" is Ready") {
		t.Errorf("it printed %q", out)
	}
	if out, err := there("grep", "it was renamed", "/var/lib/flyball/log/flyball.log"); err != nil {
		t.Error("the log does not say what has become of the serving certificate:", err, out)
	}
	after := cluster.Await(t, ns, "steady", cluster.Ready)
	if b, a := before.Status.ContainerStatuses[0], after.Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID || a.RestartCount != 0 {
		t.Errorf("its container was %s and is %s, restarted %d times", b.ContainerID, a.ContainerID, a.RestartCount)
	}
	if out := cluster.Kubectl(t, "exec", "-n", ns, "steady", "--", "toolbox", "hostname"); strings.TrimSpace(out) != "steady" {
		t.Errorf("exec printed %q", out)
	}
}

// testLeft: a node that was drained and deleted stays away, and says why; down leaves nothing, whatever is broken.
func testLeft(t *testing.T) {
	nodes := cluster.Client(t).CoreV1().Nodes()
	cluster.Kubectl(t, "drain", second, "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=60s")
	cluster.Kubectl(t, "delete", "node", second)
	cluster.Eventually(t, cluster.Soon, func() error {
		if out, _ := there(cluster.Binary(), "status"); !strings.Contains(out, "Node "+second+" was deleted") {
			return fmt.Errorf("its status is\n%s", out)
		}
		return nil
	})
	if _, err := nodes.Get(t.Context(), second, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the Node came back by itself (%v)", err)
	}
	cluster.Eventually(t, cluster.Soon, func() error {
		routes, err := os.ReadFile("/proc/net/route")
		if err == nil && strings.Contains(string(routes), gateway(secondIP)) {
			err = errors.New("there is still a route through the machine that has left")
		}
		return err
	})
	// What is broken can be removed, too.
	config := filepath.Join(t.TempDir(), "flyball.yaml")
	if err := os.WriteFile(config, []byte("apiVersion: config.flyball.dev/v1alpha1\nkind: FlyballConfiguration\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := there("sh", "-c", "echo { > /var/lib/flyball/agent/cluster.yaml"); err != nil {
		t.Fatal(err, out)
	}
	began := time.Now()
	if out := flyball(t, "down", "--purge", "--config", config); !strings.Contains(out, "/var/lib/flyball/agent/cluster.yaml") {
		t.Errorf("it does not say what it could not read: %s", out)
	}
	t.Logf("down took %s", time.Since(began))
}

// gateway is how /proc/net/route writes an address.
func gateway(ip string) string {
	a := netip.MustParseAddr(ip).As4()
	return fmt.Sprintf("%08X", binary.NativeEndian.Uint32(a[:]))
}
