package simulated

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

// admin and client are those of the API server that all tests of the package share.
var (
	admin  *rest.Config
	client kubernetes.Interface
)

// timeout is for what takes a second on an idle machine.
const timeout = 2 * time.Minute

func TestMain(m *testing.M) {
	ctrllog.SetLogger(klog.Background())
	os.Exit(func() int {
		assets, err := findAssets()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		cluster := &envtest.Environment{BinaryAssetsDirectory: assets, ControlPlaneStartTimeout: timeout}
		// There is no controller that makes the service account which the plugin wants.
		cluster.ControlPlane.GetAPIServer().Configure().Append("disable-admission-plugins", "ServiceAccount")
		if admin, err = cluster.Start(); err != nil {
			fmt.Fprintln(os.Stderr, "starting kube-apiserver and etcd:", err)
			return 1
		}
		defer func() { _ = cluster.Stop() }()
		admin.QPS = -1
		if client, err = kubernetes.NewForConfig(admin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

func findAssets() (string, error) {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		return dir, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for root := dir; root != filepath.Dir(root); root = filepath.Dir(root) {
		assets := filepath.Join(root, "bin", "envtest")
		if _, err := os.Stat(filepath.Join(assets, "kube-apiserver")); err == nil {
			return assets, nil
		}
	}
	return "", fmt.Errorf("finding kube-apiserver and etcd above %s: run `make build bin/envtest/kube-apiserver bin/envtest/etcd`, or set KUBEBUILDER_ASSETS", dir)
}

// rig is some simulated nodes and a namespace for one test.
type rig struct {
	t         *testing.T
	prefix    string
	namespace string
	stop      func()
}

// start runs nodes until the test ends, and checks that nothing is left of them.
func start(t *testing.T, nodes int, change ...func(*Config)) *rig {
	t.Helper()
	before := goleak.IgnoreCurrent()
	namespace, err := client.CoreV1().Namespaces().Create(t.Context(), &v1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, namespace: namespace.Name, prefix: namespace.Name + "-"}
	ctx, cancel := context.WithCancel(context.Background())
	begun := time.Now()
	done, ready := make(chan error, 1), make(chan struct{})
	cfg := Config{Client: admin, Nodes: nodes, Prefix: r.prefix, Ready: func() { close(ready) }}
	for _, f := range change {
		f(&cfg)
	}
	go func() { done <- Run(ctx, cfg) }()
	r.stop = func() {
		begun := time.Now()
		cancel()
		defer func() { t.Logf("stopped after %s", time.Since(begun)) }()
		if err := <-done; err != nil {
			t.Error("running:", err)
		}
		if took := time.Since(begun); took > 30*time.Second {
			t.Errorf("stopping took %s", took)
		}
		left := []goleak.Option{before, goleak.IgnoreAnyFunction("net/http.(*http2ClientConn).readLoop"), goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop")}
		for goleak.Find(left...) != nil && time.Since(begun) < timeout { // an Event may be under way
			time.Sleep(20 * time.Millisecond)
		}
		goleak.VerifyNone(t, left...)
	}
	t.Cleanup(func() { r.stop() })
	select {
	case <-ready:
		t.Logf("%d nodes are ready after %s", nodes, time.Since(begun))
	case err := <-done:
		done <- err
		t.Fatal("running:", err)
	case <-time.After(time.Minute):
		t.Fatal("the nodes are not ready after a minute")
	}
	return r
}

// pod creates a Pod on the first node.
func (r *rig) pod(name string, change func(*v1.Pod)) *v1.Pod {
	r.t.Helper()
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: r.namespace, Annotations: map[string]string{}},
		Spec:       v1.PodSpec{NodeName: r.prefix + "0", Containers: []v1.Container{{Name: "main", Image: "example.org/app:1"}}},
	}
	if change != nil {
		change(p)
	}
	p, err := client.CoreV1().Pods(r.namespace).Create(r.t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// wait returns the Pod once it is as wanted.
func (r *rig) wait(name, what string, holds func(*v1.Pod) bool) *v1.Pod {
	r.t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		p, err := client.CoreV1().Pods(r.namespace).Get(r.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			r.t.Fatal(err)
		}
		if holds(p) {
			return p
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("waiting for Pod %s to be %s; its status is %+v", name, what, p.Status)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (r *rig) gone(name string) {
	r.t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		_, err := client.CoreV1().Pods(r.namespace).Get(r.t.Context(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("Pod %s does not go away: %v", name, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func isReady(p *v1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == v1.PodReady {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

func TestPodRuns(t *testing.T) {
	r := start(t, 3)
	r.pod("web", nil)
	p := r.wait("web", "ready", isReady)
	if p.Status.PodIP == "" || p.Status.Phase != v1.PodRunning {
		t.Errorf("status %+v", p.Status)
	}
	if err := client.CoreV1().Pods(r.namespace).Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.gone("web")
}

func TestSomeNodesAreAwaited(t *testing.T) {
	others := make(chan struct{})
	r := start(t, 3, func(cfg *Config) {
		cfg.Awaited = 1
		cfg.Client = rest.CopyConfig(cfg.Client)
		cfg.Client.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				if who := r.Header.Get("Impersonate-User"); who != "" && !strings.HasSuffix(who, "-0") {
					select {
					case <-others:
					case <-r.Context().Done():
						return nil, r.Context().Err()
					}
				}
				return next.RoundTrip(r)
			})
		})
	})
	close(others) // and start has returned
	r.pod("web", func(p *v1.Pod) { p.Spec.NodeName = r.prefix + "2" })
	r.wait("web", "ready", isReady)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func portOf(n int) intstr.IntOrString { return intstr.FromInt32(int32(n)) }
