// Package deploy tests the way of a Deployment: three Pods behind a Service, more of them, new ones, none.
package deploy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/dynamic"

	"flyball.dev/test/e2e/internal/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// kinds are the two Deployments that one loop serves.
var kinds = map[string]schema.GroupVersionResource{
	"apps/v1":                   {Group: "apps", Version: "v1", Resource: "deployments"},
	"apps.flyball.dev/v1alpha1": {Group: "apps.flyball.dev", Version: "v1alpha1", Resource: "deployments"},
}

func TestDeployment(t *testing.T) {
	for name, kind := range kinds {
		t.Run(strings.ReplaceAll(name, "/", "-"), func(t *testing.T) {
			s := newStory(t, kind)
			s.linger = true
			s.apply(3, "one")
			s.awaitPods(3, "one")
			s.expose()
			s.answers(3)
			s.isComplete()

			s.linger = false // only Pods of the first version end while the Service is asked
			watching := s.watchAvailability()
			s.apply(3, "two")
			s.awaitPods(3, "two")
			if failures := watching(); failures != "" {
				t.Errorf("during the rolling update the Service did not always answer: %s", failures)
			}
			s.isComplete()

			s.apply(5, "two")
			s.awaitPods(5, "two")
			s.apply(2, "two")
			s.awaitPods(2, "two")
			s.answers(2)
			s.isComplete()
			s.delete()
		})
	}
}

func TestRecreate(t *testing.T) {
	s := newStory(t, kinds["apps/v1"])
	s.strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	s.apply(2, "one")
	s.awaitPods(2, "one")
	s.apply(2, "two")
	s.awaitPods(2, "two")
	s.delete()
}

// TestOrphans deletes a ReplicaSet but not its Pods, which the next one with the same selector adopts.
func TestOrphans(t *testing.T) {
	ns, c := cluster.Namespace(t), cluster.Client(t)
	s := &story{t: t, ns: ns}
	replicas := int32(2)
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: "first"},
		Spec:       appsv1.ReplicaSetSpec{Replicas: &replicas, Selector: selector(), Template: template("one")},
	}
	created, err := c.AppsV1().ReplicaSets(ns).Create(t.Context(), rs, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before := s.awaitPods(2, "one")
	orphan := metav1.DeletePropagationOrphan
	if err := c.AppsV1().ReplicaSets(ns).Delete(t.Context(), created.Name, metav1.DeleteOptions{PropagationPolicy: &orphan}); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, cluster.Soon, func() error {
		for _, p := range s.pods() {
			if len(p.OwnerReferences) > 0 {
				return fmt.Errorf("pod %s still has an owner", p.Name)
			}
		}
		return nil
	})
	rs = rs.DeepCopy()
	rs.Name = "second"
	if created, err = c.AppsV1().ReplicaSets(ns).Create(t.Context(), rs, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, cluster.Soon, func() error {
		for _, p := range s.pods() {
			if !metav1.IsControlledBy(&p, created) {
				return fmt.Errorf("pod %s is not adopted", p.Name)
			}
		}
		return nil
	})
	if after := s.awaitPods(2, "one"); !slices.Equal(before, after) {
		t.Errorf("the Pods were %v and are %v: adopted Pods are kept", before, after)
	}
}

// story is a Deployment named web and its Service.
type story struct {
	t         *testing.T
	ns        string
	kind      schema.GroupVersionResource
	strategy  appsv1.DeploymentStrategy
	linger    bool // its Pods answer for a while after they are told to end
	clusterIP string
}

func newStory(t *testing.T, kind schema.GroupVersionResource) *story {
	t.Helper()
	return &story{t: t, ns: cluster.Namespace(t), kind: kind}
}

func selector() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
}

func template(version string) corev1.PodTemplateSpec {
	grace := int64(5)
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web", "version": version}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{
				Name: "web", Image: cluster.Hello,
				Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
				ReadinessProbe: &corev1.Probe{
					PeriodSeconds: 1,
					ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080)}},
				},
			}},
		},
	}
}

// lingering makes Pods that answer for a while after they are told to end. They are told at the moment in which the Service
// is told to do without them: until the EndpointSlice has changed takes some 30 ms, and seconds on a machine with too much
// to do.
func lingering(pods corev1.PodTemplateSpec) corev1.PodTemplateSpec {
	grace := int64(15)
	pods.Spec.TerminationGracePeriodSeconds = &grace
	pods.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 10}}}
	return pods
}

func (s *story) client() dynamic.ResourceInterface {
	s.t.Helper()
	c, err := dynamic.NewForConfig(cluster.RESTConfig(s.t))
	if err != nil {
		s.t.Fatal(err)
	}
	return c.Resource(s.kind).Namespace(s.ns)
}

func (s *story) apply(replicas int32, version string) {
	s.t.Helper()
	pods := template(version)
	if s.linger {
		pods = lingering(pods)
	}
	d := &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: s.kind.GroupVersion().String(), Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       appsv1.DeploymentSpec{Replicas: &replicas, Selector: selector(), Template: pods, Strategy: s.strategy},
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(d)
	if err != nil {
		s.t.Fatal(err)
	}
	delete(content, "status")
	if s.strategy.Type == "" {
		unstructured.RemoveNestedField(content, "spec", "strategy")
	}
	if _, err := s.client().Apply(s.t.Context(), "web", &unstructured.Unstructured{Object: content}, metav1.ApplyOptions{FieldManager: "e2e"}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) pods() []corev1.Pod {
	s.t.Helper()
	list, err := cluster.Client(s.t).CoreV1().Pods(s.ns).List(s.t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		s.t.Fatal(err)
	}
	return list.Items
}

// awaitPods waits until there are exactly n Pods, all Ready and of the version, and returns their UIDs.
func (s *story) awaitPods(n int, version string) []string {
	s.t.Helper()
	var uids []string
	cluster.Eventually(s.t, cluster.Soon, func() error {
		uids = nil
		pods := s.pods()
		if len(pods) != n {
			return fmt.Errorf("there are %d Pods, want %d", len(pods), n)
		}
		for _, p := range pods {
			if p.Labels["version"] != version {
				return fmt.Errorf("pod %s is of version %s, want %s", p.Name, p.Labels["version"], version)
			}
			if err := cluster.Ready(&p); err != nil {
				return fmt.Errorf("pod %s: %w", p.Name, err)
			}
			uids = append(uids, string(p.UID))
		}
		return nil
	})
	slices.Sort(uids)
	return uids
}

func (s *story) expose() {
	s.t.Helper()
	service, err := cluster.Client(s.t).CoreV1().Services(s.ns).Create(s.t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"},
			Ports:    []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.clusterIP = service.Spec.ClusterIP
}

func (s *story) url() string { return "http://" + s.clusterIP + "/" }

// answers waits until n different Pods answer behind the Service's address.
func (s *story) answers(n int) {
	s.t.Helper()
	cluster.Eventually(s.t, cluster.Soon, func() error {
		seen := map[string]bool{}
		for range 20 * n {
			body, err := cluster.Get(s.t.Context(), s.url())
			if err != nil {
				return err
			}
			if !strings.HasPrefix(body, "Hello from ") {
				return fmt.Errorf("the Service answers %q", body)
			}
			seen[body] = true
		}
		if len(seen) != n {
			return fmt.Errorf("%d Pods answer, want %d: %v", len(seen), n, slices.Collect(maps.Keys(seen)))
		}
		return nil
	})
}

// watchAvailability asks the Service again and again until the returned function is called, which tells what failed, or the
// test ends.
func (s *story) watchAvailability() func() string {
	stop, failures := make(chan struct{}), make(chan string)
	go func() {
		// Without a pause the asking alone would keep the machine busy.
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		var failed []string
		for {
			if _, err := cluster.Get(s.t.Context(), s.url()); err != nil {
				failed = append(failed, err.Error())
			}
			select {
			case <-stop:
				failures <- strings.Join(failed, "; ")
				return
			case <-tick.C:
			}
		}
	}()
	end := sync.OnceValue(func() string { close(stop); return <-failures })
	s.t.Cleanup(func() { end() })
	return end
}

// isComplete waits until the Deployment's status says so.
func (s *story) isComplete() {
	s.t.Helper()
	cluster.Eventually(s.t, cluster.Soon, func() error {
		got, err := s.client().Get(s.t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		var d appsv1.Deployment
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(got.Object, &d); err != nil {
			return err
		}
		want := *d.Spec.Replicas
		st := d.Status
		if st.ObservedGeneration != d.Generation || st.Replicas != want || st.UpdatedReplicas != want || st.ReadyReplicas != want || st.AvailableReplicas != want {
			return fmt.Errorf("of %d replicas, the status says %+v", want, st)
		}
		for _, c := range st.Conditions {
			if c.Type == appsv1.DeploymentAvailable && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return errors.New("it has no condition Available")
	})
}

// delete removes the Deployment; ReplicaSets and Pods go with it.
func (s *story) delete() {
	s.t.Helper()
	if err := s.client().Delete(s.t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		s.t.Fatal(err)
	}
	cluster.Eventually(s.t, cluster.Soon, func() error {
		if n := len(s.pods()); n > 0 {
			return fmt.Errorf("%d Pods are left", n)
		}
		return nil
	})
}
