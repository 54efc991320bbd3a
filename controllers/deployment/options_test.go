package deployment_test

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers/deployment"
	"flyball.dev/controllers/internal/testenv"
)

// ours is one test's Deployment of apps.flyball.dev.
func ours(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	return &world{T: t, Group: env.Groups["flyball"], namespace: env.Namespace(t)}
}

// set changes what apps/v1 lacks, by a merge patch of the spec.
func (w *world) set(spec string) {
	w.Helper()
	object := w.Deployments.New()
	object.SetNamespace(w.namespace)
	object.SetName("web")
	if err := env.Client.Patch(w.Context(), object, client.RawPatch(types.MergePatchType, []byte(`{"spec":`+spec+`}`))); err != nil {
		w.Fatal("changing the spec: ", err)
	}
}

func (w *world) options() v1alpha1.DeploymentStatus {
	w.Helper()
	var d v1alpha1.Deployment
	if err := env.Client.Get(w.Context(), types.NamespacedName{Namespace: w.namespace, Name: "web"}, &d); err != nil {
		w.Fatal(err)
	}
	return d.Status
}

func TestPartitionHoldsARollout(t *testing.T) {
	w := ours(t)
	w.apply(all(replicas(10), func(d *appsv1.Deployment) { d.Spec.ProgressDeadlineSeconds = new(int32(1)) }))
	w.expectComplete()
	w.set(`{"strategy":{"rollingUpdate":{"partition":"40%"}},"template":{"spec":{"containers":[{"name":"main","image":"image:2"}]}}}`)
	w.expect("held", func(d *appsv1.Deployment) bool {
		return reason(d, appsv1.DeploymentProgressing) == v1alpha1.PartitionReachedReason && d.Status.UpdatedReplicas == 6
	})
	w.expectHistory("six of ten have moved", "1 image:1 4", "2 image:2 6")
	w.set(`{"strategy":{"rollingUpdate":{"partition":1}}}`)
	w.expectHistory("nine have", "1 image:1 1", "2 image:2 9")
	w.set(`{"strategy":{"rollingUpdate":{"partition":0}}}`)
	w.expectComplete()
}

func TestCrashLoopIsTakenBack(t *testing.T) {
	w := ours(t)
	w.apply(replicas(4))
	w.expectComplete()
	w.set(`{"rollback":{"onCrashLoop":{"restarts":2,"pods":"25%"}}}`)
	w.apply(all(image("bad"), behave(testenv.Crashes)))
	w.expect("rolled back", func(d *appsv1.Deployment) bool {
		return reason(d, v1alpha1.RolledBack) == v1alpha1.CrashLoopReason && d.Status.AvailableReplicas == 4 && d.Status.Replicas == 4
	})
	// A ReplicaSet that was scaled a moment ago still reports the Pods that it had.
	w.expectHistory("the old one has all Pods again", "1 image:1 4", "2 image:bad 0")
	w.diff("Progressing", v1alpha1.CrashLoopReason, reason(w.d, appsv1.DeploymentProgressing))
	note := w.options().Rollback
	if note == nil || note.From.Revision != 2 || note.To.Revision != 1 || note.Reason != v1alpha1.CrashLoopReason {
		w.Fatalf("status.rollback: %+v", note)
	}
	testenv.Eventually(w.T, func() error {
		if messages := env.Events(w.T, w.d)[deployment.RolledBackReason]; len(messages) != 1 || messages[0] != note.Message {
			return fmt.Errorf("Events %q, want %q", messages, note.Message)
		}
		return nil
	})

	// Scaling does not try the failed revision again; another template does end the matter.
	w.apply(replicas(6))
	w.expect("scaled", func(d *appsv1.Deployment) bool { return d.Status.AvailableReplicas == 6 })
	w.diff("history", []string{"1 image:1 6", "2 image:bad 0"}, w.history())
	w.apply(all(image("3"), behave("")))
	w.expectComplete()
	if status := w.options(); status.Rollback != nil || reason(w.d, v1alpha1.RolledBack) != "" {
		w.Fatalf("the rollback is still reported: %+v", status)
	}
}

func TestMissedDeadlineIsTakenBack(t *testing.T) {
	w := ours(t)
	w.apply(func(d *appsv1.Deployment) { d.Spec.ProgressDeadlineSeconds = new(int32(2)) })
	w.expectComplete()
	w.set(`{"rollback":{"onProgressDeadlineExceeded":true}}`)
	w.apply(all(image("bad"), behave(testenv.NeverReady)))
	w.expect("rolled back", func(d *appsv1.Deployment) bool {
		return reason(d, v1alpha1.RolledBack) == util.TimedOutReason && d.Status.AvailableReplicas == 3 && d.Status.Replicas == 3
	})
	w.expectHistory("the old one has all Pods again", "1 image:1 3", "2 image:bad 0")
	w.diff("Progressing", util.TimedOutReason, reason(w.d, appsv1.DeploymentProgressing))
}

// TestScaleSubresource: kubectl scale and autoscalers find size and selector there, and change the
// size.
func TestScaleSubresource(t *testing.T) {
	w := ours(t)
	w.apply(func(*appsv1.Deployment) {})
	w.expectComplete()
	disco, err := discovery.NewDiscoveryClientForConfig(env.Admin)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := restmapper.GetAPIGroupResources(disco)
	if err != nil {
		t.Fatal(err)
	}
	scaler, err := scale.NewForConfig(env.Admin, restmapper.NewDiscoveryRESTMapper(groups), dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(disco))
	if err != nil {
		t.Fatal(err)
	}
	set := w.sets()[0]
	for name, resource := range map[string]string{"web": "deployments", set.Name: "replicasets"} {
		gr := v1alpha1.GroupVersion.WithResource(resource).GroupResource()
		testenv.Eventually(t, func() error {
			got, err := scaler.Scales(w.namespace).Get(t.Context(), gr, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if got.Spec.Replicas != 3 || got.Status.Replicas != 3 || !strings.HasPrefix(got.Status.Selector, "app=web") {
				return fmt.Errorf("%s: %+v %+v", resource, got.Spec, got.Status)
			}
			return nil
		})
	}
	gvr := v1alpha1.GroupVersion.WithResource("deployments")
	if _, err := scaler.Scales(w.namespace).Patch(t.Context(), gvr, "web", types.MergePatchType, []byte(`{"spec":{"replicas":5}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	w.expect("scaled", func(d *appsv1.Deployment) bool { return d.Status.AvailableReplicas == 5 })
}

// TestDefaults: a field that is not set has the default of apps/v1.
func TestDefaults(t *testing.T) {
	t.Parallel()
	namespace := env.Namespace(t)
	specs := map[string]appsv1.DeploymentSpec{}
	for name, group := range env.Groups {
		d := testenv.Deployment(namespace, "web", 1)
		d.Spec.Replicas = nil
		d.Spec.Template.Spec = corev1.PodSpec{} // its defaults are given to Pods
		d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
		created, err := group.Deployments.Create(t.Context(), client.NewDryRunClient(env.Client), d)
		if err != nil {
			t.Fatal(err)
		}
		created.Spec.Template.Spec = corev1.PodSpec{}
		specs[name] = created.Spec
	}
	w := &world{T: t}
	w.diff("defaults", specs["apps"], specs["flyball"])
	w.diff("maxSurge", intstr.FromString("25%"), *specs["flyball"].Strategy.RollingUpdate.MaxSurge)
}
