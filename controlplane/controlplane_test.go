package controlplane

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	bundled "flyball.dev/controlplane/version"
	"flyball.dev/internal/kubeconfig"
)

// process is a control plane in a process of its own.
type process struct {
	cmd  *exec.Cmd
	out  *bytes.Buffer // everything that it printed
	mu   sync.Mutex
	news chan string // lines as they come; closed at the end
}

// startProcess starts a control plane on dir. It is killed when the test ends.
func startProcess(t *testing.T, dir string, port int) *process {
	t.Helper()
	p := &process{out: &bytes.Buffer{}, news: make(chan string, 1000)}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), childEnv+"="+dir, fmt.Sprintf("%s_PORT=%d", childEnv, port))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if _, err := p.cmd.StdinPipe(); err != nil { // its end tells the process that the test is over, however it ended
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() {
		for s := bufio.NewScanner(r); s.Scan(); {
			p.mu.Lock()
			fmt.Fprintln(p.out, s.Text())
			p.mu.Unlock()
			p.news <- s.Text()
		}
		close(p.news)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		if t.Failed() {
			t.Logf("output of the process:\n%s", p.output())
		}
	})
	return p
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// await waits for a line that contains all the words.
func (p *process) await(t *testing.T, words ...string) string {
	t.Helper()
	timeout := time.After(time.Minute)
next:
	for {
		select {
		case line, ok := <-p.news:
			if !ok {
				t.Fatalf("the process ended without a line with %q", words)
			}
			for _, w := range words {
				if !strings.Contains(line, w) {
					continue next
				}
			}
			return line
		case <-timeout:
			t.Fatalf("no line with %q after a minute", words)
		}
	}
}

// awaitUp waits until everything is up.
func (p *process) awaitUp(t *testing.T) {
	t.Helper()
	left := map[string]bool{PartEtcd: true, PartAPIServer: true, PartScheduler: true, PartControllerManager: true, PartBootstrap: true}
	for len(left) > 0 {
		line := strings.Fields(p.await(t, " "+StateUp+" "))
		delete(left, line[1])
	}
}

// stop ends the process as a service manager does and returns how long it took.
func (p *process) stop(t *testing.T) time.Duration {
	t.Helper()
	start := time.Now()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	p.await(t, "returned")
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the process ended with %v", err)
	}
	return time.Since(start)
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func connect(t *testing.T, file string) kubernetes.Interface {
	t.Helper()
	rc, err := kubeconfig.Client(file)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestLife goes through the life of one control plane: it starts, serves, is killed, starts again,
// refuses company, stops.
func TestLife(t *testing.T) {
	if testing.Short() {
		t.Skip("starts whole control planes")
	}
	ctx := t.Context()
	dir, port := t.TempDir(), freePort(t)
	t.Setenv(childEnv+"_PORT", fmt.Sprint(port))
	cfg := testConfig(dir)
	p := startProcess(t, dir, port)
	p.awaitUp(t)
	admin := connect(t, cfg.AdminKubeconfig)

	t.Run("Version", func(t *testing.T) {
		v, err := admin.Discovery().ServerVersion()
		if err != nil || v.GitVersion != bundled.Kubernetes || v.Major != "1" || v.Minor != "37" {
			t.Errorf("version = %v, %v, want %s", v, err, bundled.Kubernetes)
		}
	})
	t.Run("Modes", func(t *testing.T) {
		for path, want := range map[string]os.FileMode{
			cfg.AdminKubeconfig: 0o600, cfg.server("encryption.yaml"): 0o600, cfg.server("etcd"): 0o700, filepath.Dir(cfg.etcdSocket()): 0o700,
			filepath.Join(cfg.DataDir, "agent", "kubelet.kubeconfig"): 0o600, filepath.Join(cfg.DataDir, "agent", "serving.pem"): 0o600,
		} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, %v, want mode %v", path, info, err, want)
			}
		}
	})
	t.Run("Bootstrap", func(t *testing.T) {
		dns, err := admin.CoreV1().Services(metav1.NamespaceSystem).Get(ctx, "kube-dns", metav1.GetOptions{})
		if err != nil || dns.Spec.ClusterIP != cfg.ClusterDNS[0].String() {
			t.Errorf("kube-dns: %v, %v", dns, err)
		}
		if _, err := admin.SchedulingV1().PriorityClasses().Get(ctx, "system-node-critical", metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("Manifests", func(t *testing.T) {
		var balls struct {
			Items []any `json:"items"`
		}
		data, err := admin.Discovery().RESTClient().Get().AbsPath("/apis/test.flyball.dev/v1/balls").DoRaw(ctx)
		if err == nil {
			err = json.Unmarshal(data, &balls)
		}
		if err != nil || len(balls.Items) != 1 {
			t.Errorf("the object of a kind from the same manifests: %s, %v", data, err)
		}
	})
	t.Run("Identities", func(t *testing.T) { testIdentities(t, cfg) })
	t.Run("Token", func(t *testing.T) {
		token, err := admin.CoreV1().ServiceAccounts("default").CreateToken(ctx, "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		review, err := admin.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token.Status.Token}}, metav1.CreateOptions{})
		if err != nil || review.Status.User.Username != "system:serviceaccount:default:default" {
			t.Errorf("token review: %v, %v", review, err)
		}
	})
	t.Run("SecretsEncrypted", func(t *testing.T) {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"k": "in-plain-sight"}}
		if _, err := admin.CoreV1().Secrets("default").Create(ctx, secret, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		raw := readEtcd(t, cfg, "/registry/secrets/default/s")
		if !bytes.HasPrefix(raw, []byte("k8s:enc:secretbox:v1:key1:")) || bytes.Contains(raw, []byte("in-plain-sight")) {
			t.Errorf("the Secret lies in etcd as %q", raw)
		}
	})
	t.Run("ControllersWork", func(t *testing.T) { testControllers(ctx, t, admin) })
	t.Run("Locked", func(t *testing.T) {
		other := startProcess(t, dir, freePort(t))
		line := other.await(t, "error")
		if want := fmt.Sprintf("process %d uses it", p.cmd.Process.Pid); !strings.Contains(line, want) {
			t.Errorf("error %q does not say %q", line, want)
		}
	})
	t.Run("PortInUse", func(t *testing.T) {
		line := startProcess(t, t.TempDir(), port).await(t, "error")
		if !strings.Contains(line, syscall.EADDRINUSE.Error()) {
			t.Errorf("error %q does not say that the port is in use", line)
		}
	})

	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p = startProcess(t, dir, port)
	p.awaitUp(t)
	t.Run("KeptThroughKill", func(t *testing.T) {
		s, err := connect(t, cfg.AdminKubeconfig).CoreV1().Secrets("default").Get(ctx, "s", metav1.GetOptions{})
		if err != nil || string(s.Data["k"]) != "in-plain-sight" {
			t.Errorf("the Secret after a restart: %v, %v", s, err)
		}
	})
	// A watch that nobody ends must not hold the server up.
	w, err := connect(t, cfg.AdminKubeconfig).CoreV1().Pods("").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if took := p.stop(t); took > 30*time.Second { // upstream waits a minute
		t.Errorf("stopping took %v", took)
	}
	if left, _ := os.ReadDir(filepath.Dir(cfg.etcdSocket())); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	t.Logf("output of the last process:\n%s", p.output())
}

// TestDamagedDatabase starts on databases that cannot be used. Each must end with one error, not
// with a hang or a crash.
func TestDamagedDatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("starts whole control planes")
	}
	dir, port := t.TempDir(), freePort(t)
	t.Setenv(childEnv+"_PORT", fmt.Sprint(port))
	first := startProcess(t, dir, port)
	first.awaitUp(t)
	first.stop(t)
	for name, tc := range map[string]struct {
		reason string
		damage func(t *testing.T, cfg Config) error
		want   []string
	}{
		"Garbage": {reason: "the disk is damaged", want: []string{"opening the database", "backup"}, damage: func(_ *testing.T, cfg Config) error {
			return os.WriteFile(filepath.Join(cfg.server("etcd"), "member", "snap", "db"), bytes.Repeat([]byte("garbage "), 8192), 0o600)
		}},
		"OtherCluster": {reason: "directories were mixed up", want: []string{"checking the database", "belongs to cluster"}, damage: func(_ *testing.T, cfg Config) error {
			if err := errors.Join(os.RemoveAll(cfg.server()), os.RemoveAll(filepath.Join(cfg.DataDir, "agent"))); err != nil {
				return err
			}
			if _, err := prepare(cfg); err != nil {
				return err
			}
			return os.CopyFS(cfg.server("etcd"), os.DirFS(testConfig(dir).server("etcd")))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			copied := t.TempDir()
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			if err := tc.damage(t, testConfig(copied)); err != nil {
				t.Fatal(err)
			}
			line := startProcess(t, copied, port).await(t, "error")
			for _, want := range tc.want {
				if !strings.Contains(line, want) {
					t.Errorf("%s: error %q does not say %q", tc.reason, line, want)
				}
			}
		})
	}
}

// TestInterruptedStart stops a control plane while it starts.
func TestInterruptedStart(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole control plane")
	}
	p := startProcess(t, t.TempDir(), freePort(t))
	p.await(t, PartAPIServer, StateStarting)
	p.stop(t)
}

// testIdentities asks the server who each kubeconfig's holder is and what it may do.
func testIdentities(t *testing.T, cfg Config) {
	t.Helper()
	server, agent := cfg.server("kubeconfig"), filepath.Join(cfg.DataDir, "agent")
	type can struct {
		verb, group, resource string
		want                  bool
	}
	for path, want := range map[string]struct {
		user string
		can  []can
	}{
		server + "/admin.kubeconfig":                   {"admin", []can{{"delete", "", "nodes", true}}},
		server + "/kube-scheduler.kubeconfig":          {"system:kube-scheduler", []can{{"list", "", "pods", true}, {"list", "", "secrets", false}}},
		server + "/kube-controller-manager.kubeconfig": {"system:kube-controller-manager", []can{{"list", "", "pods", true}}},
		server + "/controllers.kubeconfig":             {userControllers, []can{{"list", "", "secrets", false}}},
		agent + "/kubelet.kubeconfig":                  {"system:node:node1", []can{{"create", "", "nodes", true}, {"create", "authentication.k8s.io", "tokenreviews", true}, {"list", "", "secrets", false}}},
		agent + "/proxy.kubeconfig":                    {"system:kube-proxy", []can{{"watch", "discovery.k8s.io", "endpointslices", true}, {"watch", "", "pods", true}, {"list", "", "secrets", false}}},
		agent + "/dns.kubeconfig":                      {userDNS, []can{{"watch", "", "services", true}, {"watch", "", "namespaces", true}, {"list", "", "pods", false}}},
	} {
		client := connect(t, path)
		who, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil || who.Status.UserInfo.Username != want.user {
			t.Errorf("%s: user %v, %v, want %s", path, who, err, want.user)
			continue
		}
		for _, c := range want.can {
			review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
				ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: c.verb, Group: c.group, Resource: c.resource},
			}}, metav1.CreateOptions{})
			if err != nil || review.Status.Allowed != c.want {
				t.Errorf("%s: may %s %s: %v, %v, want %v", want.user, c.verb, c.resource, review.Status, err, c.want)
			}
		}
	}
}

// testControllers checks that the node allocator and the scheduler work, and that a namespace goes
// away, which takes the garbage collector, discovery and the namespace controller.
func testControllers(ctx context.Context, t *testing.T, client kubernetes.Interface) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}
	if _, err := client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	node.Status = corev1.NodeStatus{
		Capacity: corev1.ResourceList{"cpu": *q("2"), "memory": *q("4Gi"), "pods": *q("10")}, Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()}},
	}
	node.Status.Allocatable = node.Status.Capacity
	if _, err := client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node gets a podCIDR", func() bool {
		n, err := client.CoreV1().Nodes().Get(ctx, "node1", metav1.GetOptions{})
		return err == nil && strings.HasPrefix(n.Spec.PodCIDR, "10.42.") && strings.HasSuffix(n.Spec.PodCIDR, "/24")
	})
	if _, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "temporary"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	eventually(t, "a Pod is admitted", func() bool {
		_, err := client.CoreV1().Pods("temporary").Create(ctx, pod, metav1.CreateOptions{})
		return err == nil
	})
	eventually(t, "the Pod is bound", func() bool {
		p, err := client.CoreV1().Pods("temporary").Get(ctx, "p", metav1.GetOptions{})
		return err == nil && p.Spec.NodeName == "node1"
	})
	if err := client.CoreV1().Pods("temporary").Delete(ctx, "p", *metav1.NewDeleteOptions(0)); err != nil {
		t.Fatal(err)
	}
	if err := client.CoreV1().Namespaces().Delete(ctx, "temporary", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the namespace is gone", func() bool {
		_, err := client.CoreV1().Namespaces().Get(ctx, "temporary", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

func q(s string) *resource.Quantity { r := resource.MustParse(s); return &r }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after 2 minutes", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func readEtcd(t *testing.T, cfg Config, key string) []byte {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + cfg.etcdSocket()}, DialTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	got, err := client.Get(t.Context(), key)
	if err != nil || len(got.Kvs) != 1 {
		t.Fatalf("reading %s from etcd: %v, %v", key, got, err)
	}
	return got.Kvs[0].Value
}
