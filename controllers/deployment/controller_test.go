package deployment_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/controllers"
	"flyball.dev/controllers/internal/kinds"
	"flyball.dev/controllers/internal/testenv"
)

var env testenv.Env

func TestMain(m *testing.M) {
	testenv.Main(m, &env, func(ctx context.Context, cfg *rest.Config, ready func()) error {
		return controllers.Run(ctx, controllers.Config{Client: cfg, Ready: ready})
	})
}

// world is one test's Deployment.
type world struct {
	*testing.T
	kinds.Group
	namespace string
	d         *appsv1.Deployment
}

// apply creates the Deployment, or changes it.
func (w *world) apply(change func(*appsv1.Deployment)) {
	w.Helper()
	var err error
	if w.d == nil {
		d := testenv.Deployment(w.namespace, "web", 3)
		change(d)
		if w.d, err = w.Deployments.Create(w.Context(), env.Client, d); err != nil {
			w.Fatal("creating the Deployment:", err)
		}
		return
	}
	testenv.Eventually(w.T, func() error {
		before, _, err := w.Deployments.Get(w.Context(), env.Client, client.ObjectKeyFromObject(w.d))
		if err != nil {
			return err
		}
		after := before.DeepCopy()
		change(after)
		w.d, err = w.Deployments.Patch(w.Context(), env.Client, before, after)
		return err
	})
}

// expect waits until the Deployment's status satisfies a condition.
func (w *world) expect(what string, condition func(*appsv1.Deployment) bool) {
	w.Helper()
	testenv.Eventually(w.T, func() (err error) {
		if w.d, _, err = w.Deployments.Get(w.Context(), env.Client, client.ObjectKeyFromObject(w.d)); err != nil {
			return err
		}
		if w.d.Status.ObservedGeneration < w.d.Generation || !condition(w.d) {
			return fmt.Errorf("%s: generation %d, status %+v", what, w.d.Generation, w.d.Status)
		}
		return nil
	})
}

func (w *world) expectComplete() {
	w.Helper()
	w.expect("the rollout completes", func(d *appsv1.Deployment) bool {
		n := *d.Spec.Replicas
		s := d.Status
		return s.Replicas == n && s.UpdatedReplicas == n && s.AvailableReplicas == n && s.UnavailableReplicas == 0 &&
			reason(d, appsv1.DeploymentProgressing) == util.NewRSAvailableReason
	})
}

// sets are the Deployment's ReplicaSets: image and replicas, by revision.
func (w *world) sets() []*appsv1.ReplicaSet {
	w.Helper()
	all, err := w.ReplicaSets.List(w.Context(), env.Client, client.InNamespace(w.namespace))
	if err != nil {
		w.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(set *appsv1.ReplicaSet) bool { return !metav1.IsControlledBy(set, w.d) })
	slices.SortFunc(all, func(a, b *appsv1.ReplicaSet) int {
		return strings.Compare(a.Annotations[util.RevisionAnnotation], b.Annotations[util.RevisionAnnotation])
	})
	return all
}

func (w *world) history() []string {
	var history []string
	for _, set := range w.sets() {
		history = append(history, fmt.Sprintf("%s %s %d", set.Annotations[util.RevisionAnnotation], set.Spec.Template.Spec.Containers[0].Image, *set.Spec.Replicas))
	}
	return history
}

func (w *world) expectHistory(what string, want ...string) {
	w.Helper()
	testenv.Eventually(w.T, func() error {
		if diff := cmp.Diff(want, w.history()); diff != "" {
			return fmt.Errorf("%s (-want +got):\n%s", what, diff)
		}
		return nil
	})
}

func (w *world) diff(what string, want, got any) {
	w.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		w.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

func each(t *testing.T, test func(w *world)) {
	t.Helper()
	env.Each(t, func(t *testing.T, group kinds.Group, namespace string) {
		t.Helper()
		test(&world{T: t, Group: group, namespace: namespace})
	})
}

func image(tag string) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "image:" + tag }
}

func behave(how string) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) {
		d.Spec.Template.Annotations = map[string]string{testenv.Behaviour: how}
	}
}

func all(changes ...func(*appsv1.Deployment)) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) {
		for _, change := range changes {
			change(d)
		}
	}
}

func replicas(n int32) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { d.Spec.Replicas = &n }
}

func reason(d *appsv1.Deployment, of appsv1.DeploymentConditionType) string {
	for _, c := range d.Status.Conditions {
		if c.Type == of {
			return c.Reason
		}
	}
	return ""
}

func TestRollsOutRollsBackAndScales(t *testing.T) {
	each(t, func(w *world) {
		w.apply(func(d *appsv1.Deployment) { d.Annotations = map[string]string{"kubernetes.io/change-cause": "first"} })
		w.expectComplete()
		w.diff("history", []string{"1 image:1 3"}, w.history())
		set := w.sets()[0]
		hash := set.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
		w.diff("name", "web-"+hash, set.Name)
		w.diff("annotations", map[string]string{
			"kubernetes.io/change-cause": "first", util.RevisionAnnotation: "1",
			util.DesiredReplicasAnnotation: "3", util.MaxReplicasAnnotation: "4",
		}, set.Annotations)
		testenv.Eventually(w.T, func() error { // Events are sent by the way
			want := []string{fmt.Sprintf("Scaled up replica set web-%s from 0 to 3", hash)}
			if diff := cmp.Diff(want, env.Events(w.T, w.d)["ScalingReplicaSet"]); diff != "" {
				return fmt.Errorf("Events (-want +got):\n%s", diff)
			}
			return nil
		})

		w.apply(image("2"))
		w.expectComplete()
		w.diff("history", []string{"1 image:1 0", "2 image:2 3"}, w.history())

		w.apply(image("1"))
		w.expectComplete()
		w.diff("history after rolling back", []string{"2 image:2 0", "3 image:1 3"}, w.history())
		w.diff("earlier revisions", "1", w.sets()[1].Annotations[util.RevisionHistoryAnnotation])
		w.expect("the Deployment has the revision", func(d *appsv1.Deployment) bool { return d.Annotations[util.RevisionAnnotation] == "3" })

		for _, n := range []int32{6, 0, 2} {
			w.apply(replicas(n))
			w.expectComplete()
			w.diff("history", []string{"2 image:2 0", fmt.Sprintf("3 image:1 %d", n)}, w.history())
		}
		for _, pod := range env.Pods(w.T, w.namespace, nil) {
			ref := metav1.GetControllerOf(&pod)
			w.diff("the Pods' ControllerRef", w.ReplicaSets.GroupVersionKind.GroupVersion().String()+" "+w.sets()[1].Name, ref.APIVersion+" "+ref.Name)
		}
	})
}

func TestKeepsHistory(t *testing.T) {
	each(t, func(w *world) {
		w.apply(func(d *appsv1.Deployment) { d.Spec.RevisionHistoryLimit = ptr.To[int32](1) })
		w.expectComplete()
		for _, tag := range []string{"2", "3", "4"} {
			w.apply(image(tag))
			w.expectComplete()
		}
		w.expectHistory("one old ReplicaSet", "3 image:3 0", "4 image:4 3")
	})
}

func TestPausedDeploymentScalesOnly(t *testing.T) {
	each(t, func(w *world) {
		w.apply(replicas(2))
		w.expectComplete()
		w.apply(func(d *appsv1.Deployment) { d.Spec.Paused = true })
		w.expect("paused", func(d *appsv1.Deployment) bool {
			return reason(d, appsv1.DeploymentProgressing) == util.PausedDeployReason
		})
		w.apply(all(image("2"), replicas(4)))
		w.expect("scaled", func(d *appsv1.Deployment) bool {
			return d.Status.AvailableReplicas == 4 && d.Status.UpdatedReplicas == 0
		})
		w.diff("history", []string{"1 image:1 4"}, w.history())
		w.apply(func(d *appsv1.Deployment) { d.Spec.Paused = false })
		w.expectComplete()
		w.diff("history", []string{"1 image:1 0", "2 image:2 4"}, w.history())
	})
}

func TestBadTemplateStopsAndTimesOut(t *testing.T) {
	each(t, func(w *world) {
		w.apply(all(replicas(10), func(d *appsv1.Deployment) {
			d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{
				MaxSurge: new(intstr.FromInt32(3)), MaxUnavailable: new(intstr.FromInt32(2)),
			}}
			d.Spec.ProgressDeadlineSeconds = ptr.To[int32](600)
		}))
		w.expectComplete()
		w.apply(all(image("bad"), behave(testenv.NeverReady)))
		w.expect("at its partition", func(d *appsv1.Deployment) bool {
			return d.Status.UpdatedReplicas == 5 && d.Status.AvailableReplicas == 8 && d.Status.Replicas == 13
		})
		w.diff("history", []string{"1 image:1 8", "2 image:bad 5"}, w.history())

		w.apply(replicas(30))
		w.expect("scaled in proportion", func(d *appsv1.Deployment) bool { return d.Status.Replicas == 33 })
		w.diff("history", []string{"1 image:1 20", "2 image:bad 13"}, w.history())

		w.apply(func(d *appsv1.Deployment) { d.Spec.ProgressDeadlineSeconds = ptr.To[int32](1) })
		w.expect("timed out", func(d *appsv1.Deployment) bool {
			return reason(d, appsv1.DeploymentProgressing) == util.TimedOutReason
		})
		w.apply(all(image("1"), func(d *appsv1.Deployment) {
			d.Spec.Template.Annotations = nil
			d.Spec.ProgressDeadlineSeconds = ptr.To[int32](600)
		}))
		w.expectComplete()
	})
}

func TestRecreateWaitsForTheLastOldPod(t *testing.T) {
	each(t, func(w *world) {
		w.apply(all(behave(testenv.Lingers), func(d *appsv1.Deployment) {
			d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
		}))
		w.expectComplete()
		w.apply(all(image("2"), behave("")))
		testenv.Eventually(w.T, func() error {
			for _, pod := range env.Pods(w.T, w.namespace, nil) {
				if pod.DeletionTimestamp == nil {
					return fmt.Errorf("Pod %s is not being deleted", pod.Name)
				}
			}
			return nil
		})
		w.expect("old Pods are reported as terminating", func(d *appsv1.Deployment) bool {
			return d.Status.Replicas == 0 && ptr.Deref(d.Status.TerminatingReplicas, 0) == 3
		})
		w.diff("history while old Pods linger", []string{"1 image:1 0"}, w.history())
		for _, pod := range env.Pods(w.T, w.namespace, nil) {
			if err := env.Client.Delete(w.Context(), &pod, client.GracePeriodSeconds(0)); err != nil {
				w.Fatal(err)
			}
		}
		w.expectComplete()
		w.diff("history", []string{"1 image:1 0", "2 image:2 3"}, w.history())
	})
}

func TestAdoptsAndReleasesReplicaSets(t *testing.T) {
	each(t, func(w *world) {
		orphan := testenv.ReplicaSet(w.namespace, "orphan", 3)
		orphan.Spec.Template.Labels = map[string]string{"app": "web"}
		orphan.Spec.Selector.MatchLabels, orphan.Labels = orphan.Spec.Template.Labels, orphan.Spec.Template.Labels
		if _, err := w.ReplicaSets.Create(w.Context(), env.Client, orphan); err != nil {
			w.Fatal(err)
		}
		testenv.Eventually(w.T, func() error { // before the loops know it, a Deployment could only make another one
			set, _, err := w.ReplicaSets.Get(w.Context(), env.Client, client.ObjectKeyFromObject(orphan))
			if err == nil && set.Status.AvailableReplicas != 3 {
				err = fmt.Errorf("the orphan's status is %+v", set.Status)
			}
			return err
		})
		w.apply(func(*appsv1.Deployment) {})
		w.expectComplete()
		w.diff("the orphan has the template, so it is the current one", []string{"1 image:1 3"}, w.history())
		w.diff("name", "orphan", w.sets()[0].Name)

		before := w.sets()[0]
		after := before.DeepCopy()
		after.Labels = map[string]string{"app": "else"}
		if _, err := w.ReplicaSets.Patch(w.Context(), env.Client, before, after); err != nil {
			w.Fatal(err)
		}
		testenv.Eventually(w.T, func() error {
			if set := w.sets(); len(set) == 1 && set[0].Name == before.Name {
				return fmt.Errorf("still controlled")
			}
			return nil
		})
		w.expectHistory("a new one in its place", "1 image:1 3")
		w.expectComplete()
		if w.sets()[0].Name == "orphan" {
			w.Fatal("the ReplicaSet was not released")
		}
	})
}

func TestCollidingNameGetsAnotherHash(t *testing.T) {
	each(t, func(w *world) {
		w.apply(image("1"))
		w.expectComplete()
		taken := w.sets()[0].Name
		if err := w.deleteAll(); err != nil {
			w.Fatal(err)
		}
		// The loop may see the end of its ReplicaSet before that of the Deployment, and create
		// another.
		testenv.Eventually(w.T, func() error {
			if err := w.deleteSets(); err != nil {
				return err
			}
			_, err := w.ReplicaSets.Create(w.Context(), env.Client, testenv.ReplicaSet(w.namespace, taken, 0))
			return err
		})
		w.apply(image("1"))
		w.expectComplete()
		if name := w.sets()[0].Name; name == taken {
			w.Fatal("took over a stranger's ReplicaSet ", name)
		}
		w.diff("collisionCount", int32(1), ptr.Deref(w.d.Status.CollisionCount, 0))
	})
}

func (w *world) deleteSets() error {
	return env.Client.DeleteAllOf(w.Context(), w.ReplicaSets.New(), client.InNamespace(w.namespace))
}

// deleteAll does the garbage collector's work, since envtest has none.
func (w *world) deleteAll() error {
	object := w.Deployments.New()
	object.SetNamespace(w.namespace)
	object.SetName("web")
	if err := env.Client.Delete(w.Context(), object); err != nil {
		return err
	}
	if err := w.deleteSets(); err != nil {
		return err
	}
	w.d = nil
	return env.Client.DeleteAllOf(w.Context(), &corev1.Pod{}, client.InNamespace(w.namespace), client.GracePeriodSeconds(0))
}
