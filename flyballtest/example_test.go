package flyballtest_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"flyball.dev/flyballtest"
)

// A Deployment gets Pods, and a restored checkpoint knows nothing of it.
func Example() {
	cluster, err := flyballtest.New(flyballtest.WithNodes(1))
	if err != nil {
		panic(err)
	}
	defer cluster.Close()
	empty, err := cluster.Checkpoint()
	if err != nil {
		panic(err)
	}

	ctx := context.Background()
	deployments := kubernetes.NewForConfigOrDie(cluster.Config()).AppsV1().Deployments("default")
	labels, replicas := map[string]string{"app": "web"}, int32(2)
	_, err = deployments.Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "example.com/web:1"}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		panic(err)
	}
	err = wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		web, err := deployments.Get(ctx, "web", metav1.GetOptions{})
		return err == nil && web.Status.AvailableReplicas == 2, err
	})
	fmt.Println("available:", err == nil)

	if err := cluster.Restore(empty); err != nil {
		panic(err)
	}
	list, err := deployments.List(ctx, metav1.ListOptions{})
	if err != nil {
		panic(err)
	}
	fmt.Println("Deployments after the restore:", len(list.Items))
	// Output:
	// available: true
	// Deployments after the restore: 0
}

// In a test, the cluster stops with it.
func ExampleStart() {
	_ = func(t *testing.T) { // TestWidgets
		cluster := flyballtest.Start(t,
			flyballtest.WithNodes(2),
			flyballtest.WithCRDs("../config/crd/bases"),
			flyballtest.WithManifests("testdata/manifests"),
		)
		client, err := kubernetes.NewForConfig(cluster.Config())
		if err != nil {
			t.Fatal(err)
		}
		_ = client // and so on
	}
}

// The tests of a package share one cluster, and each finds it as the first did.
func ExampleCluster_Restore() {
	var (
		cluster *flyballtest.Cluster
		fresh   *flyballtest.Checkpoint
	)
	_ = func(m *testing.M) { // TestMain
		code := func() int {
			var err error
			if cluster, err = flyballtest.New(flyballtest.WithNodes(1), flyballtest.WithCRDs("../config/crd/bases")); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			defer cluster.Close()
			if fresh, err = cluster.Checkpoint(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			return m.Run()
		}()
		os.Exit(code)
	}
	_ = func(t *testing.T) { // each test
		t.Cleanup(func() {
			if err := cluster.Restore(fresh); err != nil {
				t.Error(err)
			}
		})
	}
}

// A user is allowed what RBAC says, and is a context of the kubeconfig file as well, so that a
// person may look around with kubectl --kubeconfig FILE --context jane.
func ExampleCluster_User() {
	cluster, err := flyballtest.New(flyballtest.WithoutControllers(), flyballtest.WithManifests("testdata/roles.yaml"))
	if err != nil {
		panic(err)
	}
	defer cluster.Close()

	jane := kubernetes.NewForConfigOrDie(cluster.User("jane", "editors"))
	// The API server learns of RBAC by a watch, as everybody does: a moment after it is written.
	may := func(ctx context.Context) (bool, error) {
		_, err := jane.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		return err == nil, nil
	}
	fmt.Println("Pods:", wait.PollUntilContextTimeout(context.Background(), 10*time.Millisecond, time.Minute, true, may))
	_, err = jane.CoreV1().Secrets("default").List(context.Background(), metav1.ListOptions{})
	fmt.Println("Secrets:", err)

	file, err := clientcmd.LoadFromFile(cluster.Kubeconfig())
	if err != nil {
		panic(err)
	}
	fmt.Println("contexts:", slices.Sorted(maps.Keys(file.Contexts)))
	// Output:
	// Pods: <nil>
	// Secrets: secrets is forbidden: User "jane" cannot list resource "secrets" in API group "" in the namespace "default"
	// contexts: [admin jane]
}

// Webhooks are served by the test, at the address that the API server was told. A manager takes the
// same server.
func ExampleCluster_Webhooks() {
	cluster, err := flyballtest.New(flyballtest.WithoutControllers(),
		flyballtest.WithCRDs("testdata/crd"), flyballtest.WithWebhooks("testdata/webhooks"))
	if err != nil {
		panic(err)
	}
	defer cluster.Close()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	hooks := cluster.Webhooks()
	server := webhook.NewServer(webhook.Options{Host: hooks.Host, Port: hooks.Port, CertDir: hooks.CertDir})
	server.Register("/validate-widget", &webhook.Admission{
		Handler: admission.HandlerFunc(func(_ context.Context, request admission.Request) admission.Response {
			return admission.Denied("there are no widgets called " + request.Name)
		}),
	})
	go func() { _ = server.Start(ctx) }()
	serves := func(context.Context) (bool, error) { return server.StartedChecker()(nil) == nil, nil }
	if err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, time.Minute, true, serves); err != nil {
		panic(err)
	}

	widget := &unstructured.Unstructured{}
	widget.SetAPIVersion("example.com/v1")
	widget.SetKind("Widget")
	widget.SetName("lever")
	client := dynamic.NewForConfigOrDie(cluster.Config()).Resource(widgets).Namespace("default")
	// The API server learns of webhooks by a watch, as everybody does: a moment after they are
	// written.
	refused := func(ctx context.Context) (bool, error) {
		_, err = client.Create(ctx, widget, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil, nil
	}
	if err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, time.Minute, true, refused); err != nil {
		panic(err)
	}
	fmt.Println(err)
	// Output: admission webhook "widgets.example.com" denied the request: there are no widgets called lever
}
