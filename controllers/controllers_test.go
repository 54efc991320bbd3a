package controllers_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers"
	"flyball.dev/controllers/internal/testenv"
)

var (
	env testenv.Env
	// metricsAt and healthAt are where the loops under test serve.
	metricsAt, healthAt = freeAddress(), freeAddress()
)

func freeAddress() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// The loops run as config/default installs them in a cluster that is not Flyball's: for our own
// kinds only, as its ServiceAccount, with the permissions that this has.
func TestMain(m *testing.M) {
	testenv.Main(m, &env, func(ctx context.Context, _ *rest.Config, ready func()) error {
		if err := install(ctx); err != nil {
			return err
		}
		cfg := rest.CopyConfig(env.Admin)
		cfg.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + installedIn + ":flyball-controllers"}
		return controllers.Run(ctx, controllers.Config{
			Client: cfg, Ready: ready, LeaderElection: true, LeaseNamespace: installedIn, MetricsAddress: metricsAt, HealthAddress: healthAt,
			Kinds: []schema.GroupVersion{v1alpha1.GroupVersion},
		})
	})
}

const installedIn = "flyball-system"

// install does what kubectl apply --server-side -k config/default does.
func install(ctx context.Context) error {
	manifests, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "../config/default")
	if err != nil {
		return fmt.Errorf("building config/default: %w", err)
	}
	for _, manifest := range manifests.Resources() {
		content, err := manifest.Map()
		if err != nil {
			return fmt.Errorf("reading %s: %w", manifest.CurId(), err)
		}
		object := &unstructured.Unstructured{Object: content}
		if err := env.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("test"), client.ForceOwnership); err != nil {
			return fmt.Errorf("applying %s: %w", manifest.CurId(), err)
		}
	}
	return nil
}

// TestInstalledHasNothingToDoWithApps: the loops have no permission for the cluster's own
// Deployments.
func TestInstalledHasNothingToDoWithApps(t *testing.T) {
	cfg := rest.CopyConfig(env.Admin)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + installedIn + ":flyball-controllers"}
	clientset, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clientset.AppsV1().Deployments("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("listing Deployments of apps/v1: %v", err)
	}
	if _, err := clientset.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("listing Secrets: %v", err)
	}
}

func TestServesTheKindsItIsToldTo(t *testing.T) {
	namespace := env.Namespace(t)
	set := testenv.ReplicaSet(namespace, "theirs", 2)
	if _, err := env.Groups["apps"].ReplicaSets.Create(t.Context(), env.Client, set); err != nil {
		t.Fatal(err)
	}
	if _, err := env.Groups["flyball"].ReplicaSets.Create(t.Context(), env.Client, testenv.ReplicaSet(namespace, "ours", 2)); err != nil {
		t.Fatal(err)
	}
	running := func(app string, want int) {
		testenv.Eventually(t, func() error {
			if n := len(env.Pods(t, namespace, map[string]string{"app": app})); n != want {
				return fmt.Errorf("%d Pods of %s, want %d", n, app, want)
			}
			return nil
		})
	}
	running("ours", 2)
	if n := len(env.Pods(t, namespace, map[string]string{"app": "theirs"})); n != 0 {
		t.Fatalf("%d Pods for a kind that is not ours to serve", n)
	}

	// A second manager in the same process takes the other kind.
	ctx, cancel := context.WithCancel(t.Context())
	ended, ready := make(chan error, 1), make(chan struct{})
	go func() {
		ended <- controllers.Run(ctx, controllers.Config{Client: env.Admin, Kinds: []schema.GroupVersion{appsv1.SchemeGroupVersion}, Ready: func() { close(ready) }})
	}()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal("running the second manager: ", err)
	}
	running("theirs", 2)
	cancel()
	// A Reconcile that does not end within its grace period is an error.
	if err := <-ended; err != nil {
		t.Fatal("after the end of its context Run returned: ", err)
	}
}

// TestEndsInMidWrite: a write that is under way when the loops end is finished, and the loops log
// nothing.
func TestEndsInMidWrite(t *testing.T) {
	namespace := env.Namespace(t)
	// A write that takes longer than the grace period is cancelled. On a busy host that happens:
	// then try another.
	testenv.Eventually(t, func() error {
		took, said := endInMidWrite(t, namespace)
		if took < 250*time.Millisecond {
			if said != "" {
				t.Fatal("the loops said: ", said)
			}
			return nil
		}
		return fmt.Errorf("the write took %s", took)
	})
}

// endInMidWrite ends loops while they write the status of a ReplicaSet. It returns how long that
// write took, and what the loops said; that the status is not written, too, is something they did
// not say.
func endInMidWrite(t *testing.T, namespace string) (took time.Duration, said string) {
	t.Helper()
	logger := ktesting.NewLogger(ktesting.NopTL{}, ktesting.NewConfig(ktesting.Verbosity(0), ktesting.BufferLogs(true)))
	ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), logger))
	defer cancel()
	sets, set := env.Groups["apps"].ReplicaSets, testenv.ReplicaSet(namespace, "web", 1)
	set.GenerateName, set.Name = "web-", ""
	set, err := sets.Create(t.Context(), env.Client, set)
	if err != nil {
		t.Fatal(err)
	}
	stored := func() *appsv1.ReplicaSet {
		stored, _, err := sets.Get(t.Context(), env.Client, client.ObjectKeyFromObject(set))
		if err != nil {
			t.Fatal(err)
		}
		return stored
	}
	cfg := rest.CopyConfig(env.Admin)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			if request.Method == http.MethodPatch && strings.HasSuffix(request.URL.Path, set.Name+"/status") && says(request, `"observedGeneration":2`) {
				began := time.Now()
				defer func() { took = time.Since(began) }()
				cancel()
			}
			return next.RoundTrip(request)
		})
	})
	ended, ready := make(chan error, 1), make(chan struct{})
	go func() {
		ended <- controllers.Run(ctx, controllers.Config{Client: cfg, Kinds: []schema.GroupVersion{appsv1.SchemeGroupVersion}, Ready: func() { close(ready) }})
	}()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal("running the loops: ", err)
	}
	testenv.Eventually(t, func() error {
		before := stored()
		if before.Status.ReadyReplicas != 1 {
			return fmt.Errorf("not ready: %+v", before.Status)
		}
		after := before.DeepCopy()
		after.Spec.Replicas = new(int32(0))
		_, err := sets.Patch(t.Context(), env.Client, before, after)
		return err
	})
	if err := <-ended; err != nil {
		t.Error("after the end of its context Run returned: ", err)
	}
	said = logger.GetSink().(ktesting.Underlier).GetBuffer().String()
	if set = stored(); set.Status.ObservedGeneration != set.Generation {
		said += fmt.Sprintf("the status is not written: %+v", set.Status)
	}
	return took, said
}

// says is whether a request's body holds a text.
func says(request *http.Request, text string) bool {
	body, err := request.GetBody()
	if err != nil {
		return false
	}
	all, err := io.ReadAll(body)
	return err == nil && strings.Contains(string(all), text)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

// TestMetricsAreForThoseWhoMay: /metrics refuses requests without a user, and users without
// permission for it.
func TestMetricsAreForThoseWhoMay(t *testing.T) {
	clientset, err := kubernetes.NewForConfig(env.Admin)
	if err != nil {
		t.Fatal(err)
	}
	namespace := env.Namespace(t)
	token := func(name string) string {
		accounts := clientset.CoreV1().ServiceAccounts(namespace)
		if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		request, err := accounts.CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return request.Status.Token
	}
	stranger, scraper := token("stranger"), token("scraper")
	role := "scraper-" + namespace
	if _, err := clientset.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: role}, Rules: []rbacv1.PolicyRule{{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := clientset.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: "scraper"}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		token string
		want  int
	}{"Nobody": {"", http.StatusUnauthorized}, "Stranger": {stranger, http.StatusForbidden}, "Scraper": {scraper, http.StatusOK}} {
		testenv.Eventually(t, func() error {
			status, body, err := get(t, "https://"+metricsAt+"/metrics", test.token)
			if err != nil {
				return err
			}
			if status != test.want {
				return fmt.Errorf("%s: status %d, want %d", name, status, test.want)
			}
			if read := strings.Contains(body, "controller_runtime_"); read != (test.want == http.StatusOK) {
				return fmt.Errorf("%s: metrics in the answer: %v", name, read)
			}
			return nil
		})
	}
}

func TestSaysThatItIsReady(t *testing.T) {
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body, err := get(t, "http://"+healthAt+path, ""); err != nil || status != http.StatusOK {
			t.Errorf("%s: %d %s %v", path, status, body, err)
		}
	}
}

func get(t *testing.T, url, token string) (status int, body string, err error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	anyCertificate := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer anyCertificate.CloseIdleConnections()
	response, err := anyCertificate.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	return response.StatusCode, string(data), err
}

func TestUnknownKind(t *testing.T) {
	err := controllers.Run(t.Context(), controllers.Config{Client: env.Admin, Kinds: []schema.GroupVersion{{Group: "batch", Version: "v1"}}})
	if err == nil {
		t.Fatal("no error for a kind that no loop serves")
	}
}

// BenchmarkScaleUp is the time from 0 to 1000 Pods in the API.
func BenchmarkScaleUp(b *testing.B) {
	group := env.Groups["flyball"]
	for range b.N {
		set := testenv.ReplicaSet("default", fmt.Sprint("bench-", time.Now().UnixNano()), 1000)
		set.Spec.Template.Spec.NodeName = "nowhere" // bound already: the tests' kubelet leaves it alone
		set.Spec.Template.Annotations = map[string]string{testenv.Behaviour: testenv.Ignored}
		created, err := group.ReplicaSets.Create(b.Context(), env.Client, set)
		if err != nil {
			b.Fatal(err)
		}
		for {
			current, _, err := group.ReplicaSets.Get(b.Context(), env.Client, client.ObjectKeyFromObject(created))
			if err != nil {
				b.Fatal(err)
			}
			if current.Status.Replicas == 1000 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		current, _, _ := group.ReplicaSets.Get(b.Context(), env.Client, client.ObjectKeyFromObject(created))
		after := current.DeepCopy()
		after.Spec.Replicas = ptr.To[int32](0)
		_, _ = group.ReplicaSets.Patch(b.Context(), env.Client, current, after)
	}
}
