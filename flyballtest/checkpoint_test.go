package flyballtest_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"flyball.dev/flyballtest"
)

var crds = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

func newReview() *authenticationv1.SelfSubjectReview { return &authenticationv1.SelfSubjectReview{} }

// rounds is how often the cluster is taken back.
const rounds = 20

// story is what happens to a cluster between two restores.
type story struct {
	*testing.T

	client kubernetes.Interface
	all    dynamic.Interface
}

func (s story) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func TestRestore(t *testing.T) {
	cluster := flyballtest.Start(t, flyballtest.WithNodes(2), flyballtest.WithCRDs("testdata/crd"))
	s := story{T: t}
	s.client, s.all = func() (kubernetes.Interface, dynamic.Interface) { a, b := clients(t, cluster); return a, b }()
	s.begin()
	checkpoint, err := cluster.Checkpoint()
	s.must(err)
	want := s.state()
	for round := range rounds {
		// In every other round, controllers are in the middle of it.
		s.change(round, round%2 == 0)
		began := time.Now()
		s.must(cluster.Restore(checkpoint))
		t.Logf("restored in %s", time.Since(began).Round(time.Millisecond))
		if diff := cmp.Diff(want, s.state()); diff != "" {
			t.Fatalf("round %d: restored (-want +got):\n%s", round, diff)
		}
		s.works(round)
		s.must(cluster.Restore(checkpoint))
		if diff := cmp.Diff(want, s.state()); diff != "" {
			t.Fatalf("round %d: restored after work (-want +got):\n%s", round, diff)
		}
	}
}

// begin makes what is to be there at the checkpoint.
func (s story) begin() {
	ctx := s.Context()
	for _, name := range []string{"base", "extra"} {
		_, err := s.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		s.must(err)
		_, err = s.all.Resource(widgets).Namespace(name).Create(ctx, widget("first"), metav1.CreateOptions{})
		s.must(err)
		s.owned(name, "owner")
		for _, quiet := range []string{"default"} { // made by controllers
			eventually(s.T, "the service account is there", func(ctx context.Context) (bool, error) {
				_, err := s.client.CoreV1().ServiceAccounts(name).Get(ctx, quiet, metav1.GetOptions{})
				return err == nil, nil
			})
			eventually(s.T, "the certificate authority is there", func(ctx context.Context) (bool, error) {
				_, err := s.client.CoreV1().ConfigMaps(name).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
				return err == nil, nil
			})
		}
	}
	_, err := s.client.AppsV1().Deployments("base").Create(ctx, deployment("web", 2), metav1.CreateOptions{})
	s.must(err)
	_, err = s.client.CoreV1().Services("base").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	s.must(err)
	available(s.T, s.client, "base", "web")
	s.endpoints(2)
}

// owned makes an owner with two dependents.
func (s story) owned(namespace, name string) {
	s.Helper()
	configMaps := s.client.CoreV1().ConfigMaps(namespace)
	owner, err := configMaps.Create(s.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	s.must(err)
	for i := range 2 {
		_, err := configMaps.Create(s.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Name:            fmt.Sprintf("%s-%d", name, i),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: name, UID: owner.UID}},
		}}, metav1.CreateOptions{})
		s.must(err)
	}
}

// collected waits until the dependents of an owner are gone.
func (s story) collected(namespace, name string) {
	s.Helper()
	eventually(s.T, "dependents of "+name+" are collected", func(ctx context.Context) (bool, error) {
		_, err := s.client.CoreV1().ConfigMaps(namespace).Get(ctx, name+"-1", metav1.GetOptions{})
		return gone(err)
	})
}

// endpoints waits until the Service web has n addresses.
func (s story) endpoints(n int) {
	s.Helper()
	eventually(s.T, fmt.Sprintf("web has %d endpoints", n), func(ctx context.Context) (bool, error) {
		list, err := s.client.DiscoveryV1().EndpointSlices("base").List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=web"})
		if err != nil {
			return false, err
		}
		ready := 0
		for _, slice := range list.Items {
			for _, e := range slice.Endpoints {
				if e.Conditions.Ready != nil && *e.Conditions.Ready {
					ready++
				}
			}
		}
		return ready == n, nil
	})
}

// change does to the cluster what tests do, and waits for what follows, or not.
func (s story) change(round int, settle bool) {
	ctx := s.Context()
	_, err := s.client.AppsV1().Deployments("base").UpdateScale(ctx, "web", &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "base"}, Spec: autoscalingv1.ScaleSpec{Replicas: 4},
	}, metav1.UpdateOptions{})
	s.must(err)
	if settle {
		available(s.T, s.client, "base", "web")
		s.endpoints(4)
	}
	s.must(s.client.CoreV1().ConfigMaps("base").Delete(ctx, "owner", metav1.DeleteOptions{}))
	if settle {
		s.collected("base", "owner")
	}
	_, err = s.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("new-%d", round)}}, metav1.CreateOptions{})
	s.must(err)
	s.must(s.client.CoreV1().Namespaces().Delete(ctx, "extra", metav1.DeleteOptions{}))
	if settle && round%10 == 0 { // upstream's controller takes its time
		eventually(s.T, "the namespace is gone", func(ctx context.Context) (bool, error) {
			_, err := s.client.CoreV1().Namespaces().Get(ctx, "extra", metav1.GetOptions{})
			return gone(err)
		})
	}
	s.must(s.all.Resource(crds).Delete(ctx, "widgets.example.com", metav1.DeleteOptions{}))
	if settle {
		eventually(s.T, "the CRD is gone", func(ctx context.Context) (bool, error) {
			_, err := s.all.Resource(crds).Get(ctx, "widgets.example.com", metav1.GetOptions{})
			return gone(err)
		})
	}
}

// works sees that everything in the cluster does its work.
func (s story) works(round int) {
	ctx, name := s.Context(), fmt.Sprintf("again-%d", round)
	s.owned("base", name)
	s.must(s.client.CoreV1().ConfigMaps("base").Delete(ctx, name, metav1.DeleteOptions{}))
	s.collected("base", name)
	_, err := s.client.AppsV1().Deployments("extra").Create(ctx, deployment(name, 1), metav1.CreateOptions{})
	s.must(err)
	available(s.T, s.client, "extra", name)
	available(s.T, s.client, "base", "web")
	s.endpoints(2)
	_, err = s.all.Resource(widgets).Namespace("extra").Create(ctx, widget(name), metav1.CreateOptions{})
	s.must(err)
}

// state is what there is: the UID of each object, by kind and name, and the replicas of each
// Deployment. Events and Leases have a life of their own, and the API server registers kinds that
// are defined by itself.
func (s story) state() map[string]string {
	s.Helper()
	d := discovery.NewDiscoveryClient(s.client.CoreV1().RESTClient())
	lists, err := d.ServerPreferredResources()
	s.must(err)
	state := map[string]string{}
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		s.must(err)
		for _, r := range list.APIResources {
			if !slices.Contains(r.Verbs, "list") || strings.Contains(r.Name, "/") || r.Name == "componentstatuses" || r.Name == "events" || r.Name == "leases" || r.Name == "apiservices" {
				continue
			}
			objects, err := s.all.Resource(version.WithResource(r.Name)).List(s.Context(), metav1.ListOptions{})
			s.must(err)
			for _, o := range objects.Items {
				state[r.Name+"/"+o.GetNamespace()+"/"+o.GetName()] = string(o.GetUID())
			}
		}
	}
	deployments, err := s.client.AppsV1().Deployments("").List(s.Context(), metav1.ListOptions{})
	s.must(err)
	for _, o := range deployments.Items {
		state["replicas/"+o.Namespace+"/"+o.Name] = fmt.Sprint(*o.Spec.Replicas)
	}
	return state
}
