// Package testenv is a real kube-apiserver with etcd, our loops on it, and a kubelet of three
// rules: the surroundings in which the loops' controller tests run. Nothing but tests imports it.
//
// The loops run as system:flyball:controllers with the RBAC of config/rbac and with the admission
// plugin OwnerReferencesPermissionEnforcement, so that a missing permission fails a test.
package testenv

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/config"
	"flyball.dev/controllers/internal/kinds"
)

// Env is the surroundings of one test binary.
type Env struct {
	// Admin is the configuration of a cluster administrator, Client a client of the same without a
	// cache.
	Admin  *rest.Config
	Client client.Client
	// Groups are the API groups in which every test is run.
	Groups map[string]kinds.Group
}

// Main starts the surroundings with the loops that run starts, runs the tests, and ends the
// process. env is filled before the first test.
func Main(m *testing.M, env *Env, run func(ctx context.Context, cfg *rest.Config, ready func()) error) {
	os.Exit(func() int {
		stop, err := start(env, run)
		defer stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

func start(env *Env, run func(ctx context.Context, cfg *rest.Config, ready func()) error) (stop func(), err error) {
	stop = func() {}
	assets, root, err := find()
	if err != nil {
		return stop, err
	}
	cluster := &envtest.Environment{
		BinaryAssetsDirectory:    assets,
		CRDDirectoryPaths:        []string{filepath.Join(root, "config", "crd", "bases")},
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: timeout,
	}
	cluster.ControlPlane.GetAPIServer().Configure().Append("enable-admission-plugins", "OwnerReferencesPermissionEnforcement")
	env.Admin, err = cluster.Start()
	if err != nil {
		_ = cluster.Stop() // a CRD that is refused leaves the processes running
		return stop, fmt.Errorf("starting kube-apiserver and etcd from %s: %w", assets, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	close(ended)
	stop = func() {
		cancel()
		<-ended
		if err := cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping kube-apiserver and etcd:", err)
		}
	}
	env.Admin.QPS = -1
	if err := env.connect(ctx); err != nil {
		return stop, err
	}
	user, err := cluster.AddUser(envtest.User{Name: "system:flyball:controllers"}, nil)
	if err != nil {
		return stop, fmt.Errorf("adding the loops' user: %w", err)
	}
	ready, failed := make(chan struct{}), make(chan error, 1)
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		failed <- run(ctx, user.Config(), func() { close(ready) })
	}()
	select {
	case <-ready:
	case err = <-failed:
		err = fmt.Errorf("running the loops: %w", err)
	case <-time.After(timeout):
		err = fmt.Errorf("waiting for the loops: not ready after %s", timeout)
	}
	return stop, err
}

// connect makes the clients and applies what the server applies at start.
func (e *Env) connect(ctx context.Context) error {
	known := runtime.NewScheme()
	_ = scheme.AddToScheme(known)
	_ = v1alpha1.AddToScheme(known)
	var err error
	if e.Client, err = client.New(e.Admin, client.Options{Scheme: known}); err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	clientset, err := kubernetes.NewForConfig(e.Admin)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	e.Groups = map[string]kinds.Group{}
	versions := map[string]schema.GroupVersion{"apps": appsv1.SchemeGroupVersion, "flyball": v1alpha1.GroupVersion}
	for name, version := range versions {
		if e.Groups[name], err = kinds.For(version); err != nil {
			return err
		}
	}
	for _, file := range []string{"rbac/role.yaml", "rbac/user_binding.yaml", "rbac/flow_schema.yaml"} {
		if err := e.apply(ctx, file); err != nil {
			return err
		}
	}
	go kubelet(ctx, clientset)
	return nil
}

func (e *Env) apply(ctx context.Context, file string) error {
	reader, err := config.RBAC.Open(file)
	if err != nil {
		return fmt.Errorf("reading %s: %w", file, err)
	}
	defer reader.Close()
	decoder := yaml.NewYAMLOrJSONDecoder(reader, 4096)
	for {
		var object unstructured.Unstructured
		if err := decoder.Decode(&object); err != nil {
			return nil
		}
		if len(object.Object) == 0 {
			continue
		}
		if err := e.Client.Create(ctx, &object); err != nil {
			return fmt.Errorf("creating %s of %s: %w", object.GetKind(), file, err)
		}
	}
}

// find returns the directories of the assets and of the repository.
func find() (assets, root string, err error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", "", err
	}
	for root = dir; ; root = filepath.Dir(root) {
		if _, err := os.Stat(filepath.Join(root, "PROJECT")); err == nil {
			break
		}
		if root == filepath.Dir(root) {
			return "", "", fmt.Errorf("finding the repository above %s: no directory has a file PROJECT", dir)
		}
	}
	assets = os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		assets = filepath.Join(root, "bin", "envtest")
	}
	if _, err := os.Stat(filepath.Join(assets, "kube-apiserver")); err != nil {
		return "", "", fmt.Errorf("finding kube-apiserver and etcd for the controller tests: %w; run `make build bin/envtest/kube-apiserver bin/envtest/etcd`, or set KUBEBUILDER_ASSETS", err)
	}
	return assets, root, nil
}

// Namespace creates a namespace for one test.
func (e *Env) Namespace(t *testing.T) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	if err := e.Client.Create(t.Context(), namespace); err != nil {
		t.Fatal("creating a namespace:", err)
	}
	return namespace.Name
}

// Each runs a test once per API group, in parallel, in a namespace of its own.
func (e *Env) Each(t *testing.T, test func(t *testing.T, group kinds.Group, namespace string)) {
	t.Helper()
	t.Parallel()
	for name, group := range e.Groups {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, group, e.Namespace(t))
		})
	}
}

// timeout is how long a condition may take on a busy host.
const timeout = 2 * time.Minute

// Eventually waits until condition returns nil.
func Eventually(t *testing.T, condition func() error) {
	t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatal("condition does not become true: ", err)
		case <-t.Context().Done():
			t.Fatal("test ended: ", err)
		case <-tick.C:
		}
	}
}

// Pods are the Pods of a namespace that match a selector.
func (e *Env) Pods(t *testing.T, namespace string, labels map[string]string) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	if err := e.Client.List(t.Context(), &list, client.InNamespace(namespace), client.MatchingLabels(labels)); err != nil {
		t.Fatal("listing Pods:", err)
	}
	return list.Items
}

// Events are the messages of the Events on an object, by reason.
func (e *Env) Events(t *testing.T, object client.Object) map[string][]string {
	t.Helper()
	var list corev1.EventList
	if err := e.Client.List(t.Context(), &list, client.InNamespace(object.GetNamespace())); err != nil {
		t.Fatal("listing Events:", err)
	}
	messages := map[string][]string{}
	for _, event := range list.Items {
		if event.InvolvedObject.UID == object.GetUID() {
			messages[event.Reason] = append(messages[event.Reason], event.Message)
		}
	}
	return messages
}

// PodCount is so many Pods in a ResourceQuota.
func PodCount(n int) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(int64(n), resource.DecimalSI)}
}

// Template is a Pod template with labels and an image.
func Template(labels map[string]string, image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: image}}},
	}
}

// ReplicaSet is a ReplicaSet that selects Pods with the label app=name.
func ReplicaSet(namespace, name string, replicas int32) *appsv1.ReplicaSet {
	labels := map[string]string{"app": name}
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: Template(labels, "image:1"),
		},
	}
}

// Deployment is a Deployment that selects Pods with the label app=name.
func Deployment(namespace, name string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: Template(labels, "image:1"),
		},
	}
}
