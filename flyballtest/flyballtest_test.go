package flyballtest_test

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"flyball.dev/flyballtest"
)

var widgets = schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}

// eventually waits until done returns true.
func eventually(t *testing.T, what string, done func(ctx context.Context) (bool, error)) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, time.Minute, true, done); err != nil {
		t.Fatalf("waiting until %s: %v", what, err)
	}
}

func gone(err error) (bool, error) {
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	return false, err
}

func clients(t *testing.T, c *flyballtest.Cluster) (*kubernetes.Clientset, *dynamic.DynamicClient) {
	t.Helper()
	config := c.Config()
	config.WarningHandler = rest.NoWarnings{} // kinds of every age are listed
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	d, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client, d
}

func widget(name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/v1", "kind": "Widget", "metadata": map[string]any{"name": name}, "spec": map[string]any{"size": int64(1)},
	}}
}

func deployment(name string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example.com/app:1"}}},
			},
		},
	}
}

func available(t *testing.T, client kubernetes.Interface, namespace, name string) {
	t.Helper()
	eventually(t, name+" is available", func(ctx context.Context) (bool, error) {
		d, err := client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		return err == nil && d.Status.ObservedGeneration == d.Generation && d.Status.AvailableReplicas == *d.Spec.Replicas && d.Status.Replicas == *d.Spec.Replicas, err
	})
}

func TestClusters(t *testing.T) {
	t.Run("group", func(t *testing.T) {
		for i := range 2 {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				testCluster(t)
			})
		}
	})
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), fmt.Sprintf("flyballtest-%d-*", os.Getpid()))); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// testCluster uses all of a cluster but its checkpoints.
func testCluster(t *testing.T) {
	cluster := flyballtest.Start(t, flyballtest.WithNodes(1), flyballtest.WithCRDs("testdata/crd"),
		flyballtest.WithManifests("testdata/manifests"), flyballtest.WithWebhooks("testdata/webhooks"))
	client, d := clients(t, cluster)
	if settings, err := client.CoreV1().ConfigMaps("shop").Get(t.Context(), "settings", metav1.GetOptions{}); err != nil || settings.Data["color"] != "blue" {
		t.Errorf("the manifests were not applied: %v", err)
	}
	if _, err := d.Resource(widgets).Namespace("default").Get(t.Context(), "bad", metav1.GetOptions{}); err != nil {
		t.Errorf("the widget was not applied before its webhook: %v", err)
	}
	if _, err := client.AppsV1().Deployments("default").Create(t.Context(), deployment("web", 2), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	available(t, client, "default", "web")
	ours(t, d)

	serve(t, cluster.Webhooks())
	for name, allowed := range map[string]bool{"good": true, "bad": false} {
		_, err := d.Resource(widgets).Namespace("shop").Create(t.Context(), widget(name), metav1.CreateOptions{})
		if allowed && err != nil || !allowed && (err == nil || !strings.Contains(err.Error(), "a bad name")) {
			t.Errorf("creating the widget %s: %v", name, err)
		}
	}

	user, err := kubernetes.NewForConfig(cluster.User("jane", "readers"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := user.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "jane") {
		t.Errorf("jane lists Pods: got %v, want that she may not", err)
	}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: cluster.Kubeconfig()}, &clientcmd.ConfigOverrides{CurrentContext: "jane"}).ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := kubernetes.NewForConfigOrDie(config).AuthenticationV1().SelfSubjectReviews().
		Create(t.Context(), newReview(), metav1.CreateOptions{}); err != nil || got.Status.UserInfo.Username != "jane" || got.Status.UserInfo.Groups[0] != "readers" {
		t.Errorf("the context jane is %v, %v", got, err)
	}
}

// ours makes a Deployment of Flyball's own kind, which must be served by now and have its loop
// behind it.
func ours(t *testing.T, client dynamic.Interface) {
	t.Helper()
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(deployment("ours", 1))
	if err != nil {
		t.Fatal(err)
	}
	o := &unstructured.Unstructured{Object: content}
	o.SetAPIVersion("apps.flyball.dev/v1alpha1")
	o.SetKind("Deployment")
	delete(o.Object, "status")
	deployments := client.Resource(schema.GroupVersionResource{Group: "apps.flyball.dev", Version: "v1alpha1", Resource: "deployments"}).Namespace("default")
	if _, err := deployments.Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Flyball's Deployment is available", func(ctx context.Context) (bool, error) {
		got, err := deployments.Get(ctx, "ours", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		n, _, _ := unstructured.NestedInt64(got.Object, "status", "availableReplicas")
		return n == 1, nil
	})
}

func TestPlain(t *testing.T) {
	cluster := flyballtest.Start(t, flyballtest.WithoutControllers(), flyballtest.WithAPIServerFlags("--disable-admission-plugins=ServiceAccount,NamespaceLifecycle"))
	client, _ := clients(t, cluster)
	web := deployment("web", 1)
	if _, err := client.AppsV1().Deployments("not-there").Create(t.Context(), web, metav1.CreateOptions{}); err != nil {
		t.Errorf("the flag does not count: %v", err)
	}
	checkpoint, err := cluster.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.AppsV1().Deployments("not-there").Delete(t.Context(), web.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Restore(checkpoint); err != nil {
		t.Fatal(err)
	}
	if _, err := client.AppsV1().Deployments("not-there").Get(t.Context(), web.Name, metav1.GetOptions{}); err != nil {
		t.Errorf("restored: %v", err)
	}
}

// A process that goes without a word leaves nothing behind.
func TestAbandoned(t *testing.T) {
	if os.Getenv(role) != "" {
		cluster, err := flyballtest.New(flyballtest.WithNodes(1))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("\nabandoned", cluster.Config().Host, cluster.Kubeconfig())
		os.Exit(0)
	}
	temporary := t.TempDir()
	out, err := again(t, "abandoned", "TMPDIR="+temporary).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, told, _ := strings.Cut(string(out), "\nabandoned ")
	host, kubeconfig, found := strings.Cut(strings.TrimSpace(told), " ")
	if !found || !strings.HasPrefix(kubeconfig, temporary) {
		t.Fatalf("it says %q", out)
	}
	eventually(t, "nobody serves any more", func(context.Context) (bool, error) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(host, "https://"))
		if err == nil {
			return false, conn.Close()
		}
		return true, nil
	})
	var left []string
	defer func() {
		if t.Failed() {
			t.Logf("left: %v", left)
		}
	}()
	eventually(t, "nothing is left of it", func(context.Context) (bool, error) {
		left = nil
		err := filepath.WalkDir(temporary, func(path string, _ fs.DirEntry, err error) error {
			if path != temporary && err == nil {
				left = append(left, path)
			}
			return nil // what goes meanwhile is no error
		})
		return len(left) == 0, err
	})
}

// Bad input is found before anything starts, where that is possible.
func TestBadInput(t *testing.T) {
	for name, test := range map[string]struct {
		reason  string
		options []flyballtest.Option
		want    []string
	}{
		"NoYAML": {
			reason:  "the file and the document that do not parse are named",
			options: []flyballtest.Option{flyballtest.WithCRDs("testdata/broken/no.yaml")},
			want:    []string{filepath.FromSlash("testdata/broken/no.yaml"), "document 2"},
		},
		"NoKind": {
			reason:  "an object of no kind is none",
			options: []flyballtest.Option{flyballtest.WithManifests("testdata/broken/nokind.yaml")},
			want:    []string{filepath.FromSlash("testdata/broken/nokind.yaml"), "document 1", "kind and metadata.name are required"},
		},
		"NoFile": {
			reason:  "a path that does not exist is a mistake",
			options: []flyballtest.Option{flyballtest.WithCRDs("testdata/nowhere")},
			want:    []string{"testdata/nowhere"},
		},
		"Nodes": {
			reason:  "every mistake is told at once",
			options: []flyballtest.Option{flyballtest.WithNodes(1001), flyballtest.WithVerbosity(11), flyballtest.WithAPIServerFlags("--secure-port=1")},
			want:    []string{"1001 nodes are out of range", "verbosity 11", "--secure-port"},
		},
		"NodesAlone": {
			reason:  "nobody would send Pods there",
			options: []flyballtest.Option{flyballtest.WithNodes(1), flyballtest.WithoutControllers()},
			want:    []string{"nodes need controllers"},
		},
		"Conversion": {
			reason:  "a CRD that is not there cannot be converted",
			options: []flyballtest.Option{flyballtest.WithConversion("gadgets.example.com")},
			want:    []string{"gadgets.example.com"},
		},
		"Program": {
			reason:  "another program is not started",
			options: []flyballtest.Option{flyballtest.WithProgram(os.Args[0])},
			want:    []string{os.Args[0]},
		},
		"CRD": {
			reason:  "what the API server does not take is named with where it is from",
			options: []flyballtest.Option{flyballtest.WithCRDs("testdata/broken/schema.yaml"), flyballtest.WithoutControllers()},
			want:    []string{filepath.FromSlash("testdata/broken/schema.yaml"), "document 1", "openAPIV3Schema"},
		},
		"Timeout": {
			reason:  "it is said how long it was waited for",
			options: []flyballtest.Option{flyballtest.WithStartTimeout(50 * time.Millisecond), flyballtest.WithoutControllers()},
			want:    []string{"it took longer than 50ms"},
		},
		"NoTimeout": {
			reason:  "nothing starts in no time",
			options: []flyballtest.Option{flyballtest.WithStartTimeout(0)},
			want:    []string{"start timeout 0s"},
		},
		"Flag": {
			reason:  "what kube-apiserver says is told",
			options: []flyballtest.Option{flyballtest.WithAPIServerFlags("--no-such-flag"), flyballtest.WithoutControllers()},
			want:    []string{"no-such-flag"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, err := flyballtest.New(test.options...)
			if err == nil {
				t.Fatalf("%s: it has started; %v", test.reason, cluster.Close())
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %q does not name %q", test.reason, err, want)
				}
			}
		})
	}
}
