package deployment_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
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
		return reason(d, appsv1.DeploymentProgressing) == deployment.PartitionReachedReason && d.Status.UpdatedReplicas == 6
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
	w.expect("taken back", func(d *appsv1.Deployment) bool {
		return reason(d, v1alpha1.RolledBack) == deployment.CrashLoopReason && d.Status.AvailableReplicas == 4 && d.Status.Replicas == 4
	})
	w.diff("history", []string{"1 image:1 4", "2 image:bad 0"}, w.history())
	w.diff("Progressing", deployment.CrashLoopReason, reason(w.d, appsv1.DeploymentProgressing))
	note := w.options().Rollback
	if note == nil || note.From.Revision != 2 || note.To.Revision != 1 || note.Reason != deployment.CrashLoopReason {
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
	w.expect("taken back", func(d *appsv1.Deployment) bool {
		return reason(d, v1alpha1.RolledBack) == deployment.ProgressDeadlineExceededReason && d.Status.AvailableReplicas == 3 && d.Status.Replicas == 3
	})
	w.diff("history", []string{"1 image:1 3", "2 image:bad 0"}, w.history())
	w.diff("Progressing", deployment.ProgressDeadlineExceededReason, reason(w.d, appsv1.DeploymentProgressing))
}

// TestScaleSubresource: kubectl scale and autoscalers find size and selector there, and change the size.
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

// TestInvalid: what is wrong is refused, and the message names the field.
func TestInvalid(t *testing.T) {
	t.Parallel()
	namespace := env.Namespace(t)
	tests := map[string]struct {
		kind, spec, want string
		apps             bool // apps/v1 refuses it too
	}{
		"NoSelector":        {"Deployment", `{"selector":{}}`, "spec.selector: Invalid value: empty selector is invalid for deployment", true},
		"OtherLabels":       {"Deployment", `{"selector":{"matchLabels":{"app":"x"}}}`, "spec.template: Invalid value: selector does not match template labels", true},
		"OtherExpressions":  {"Deployment", `{"selector":{"matchExpressions":[{"key":"app","operator":"NotIn","values":["web"]}]}}`, "spec.template: Invalid value: selector does not match template labels", true},
		"MissingExpression": {"Deployment", `{"selector":{"matchExpressions":[{"key":"tier","operator":"Exists"}]}}`, "spec.template: Invalid value: selector does not match template labels", true},
		"BothZero":          {"Deployment", `{"strategy":{"rollingUpdate":{"maxSurge":0,"maxUnavailable":"0%"}}}`, "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: may not be 0 when maxSurge is 0", true},
		"NegativeSurge":     {"Deployment", `{"strategy":{"rollingUpdate":{"maxSurge":-1}}}`, "spec.strategy.rollingUpdate.maxSurge: Invalid value: must be a number of Pods", true},
		"NoPercentage":      {"Deployment", `{"strategy":{"rollingUpdate":{"maxSurge":"5"}}}`, "spec.strategy.rollingUpdate.maxSurge: Invalid value: must be a number of Pods", true},
		"MoreThanAll":       {"Deployment", `{"strategy":{"rollingUpdate":{"maxUnavailable":"101%"}}}`, "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: must be a number of Pods", true},
		"RecreateRolling":   {"Deployment", `{"strategy":{"type":"Recreate","rollingUpdate":{"maxSurge":1}}}`, "spec.strategy.rollingUpdate: Invalid value: may not be specified when strategy type is Recreate", true},
		"Strategy":          {"Deployment", `{"strategy":{"type":"Blue"}}`, `spec.strategy.type: Unsupported value: "Blue"`, true},
		"Deadline":          {"Deployment", `{"minReadySeconds":600}`, "spec.progressDeadlineSeconds: Invalid value: must be greater than minReadySeconds", true},
		"Replicas":          {"Deployment", `{"replicas":-1}`, "spec.replicas: Invalid value: -1", true},
		"History":           {"Deployment", `{"revisionHistoryLimit":-1}`, "spec.revisionHistoryLimit: Invalid value: -1", true},
		"RestartPolicy":     {"Deployment", `{"template":{"spec":{"restartPolicy":"Never"}}}`, "template.spec.restartPolicy must be Always", true},
		"ActiveDeadline":    {"Deployment", `{"template":{"spec":{"activeDeadlineSeconds":5}}}`, "template.spec.activeDeadlineSeconds must not be set", true},
		"Partition":         {"Deployment", `{"strategy":{"rollingUpdate":{"partition":"half"}}}`, "spec.strategy.rollingUpdate.partition: Invalid value: must be a number of Pods", false},
		"NegativePartition": {"Deployment", `{"strategy":{"rollingUpdate":{"partition":-1}}}`, "spec.strategy.rollingUpdate.partition: Invalid value: must be a number of Pods", false},
		"CrashPods":         {"Deployment", `{"rollback":{"onCrashLoop":{"pods":0}}}`, "spec.rollback.onCrashLoop.pods: Invalid value: must be a number of Pods, at least 1", false},
		"CrashRestarts":     {"Deployment", `{"rollback":{"onCrashLoop":{"restarts":0}}}`, "spec.rollback.onCrashLoop.restarts: Invalid value: 0", false},
		"SetNoSelector":     {"ReplicaSet", `{"selector":{}}`, "spec.selector: Invalid value: empty selector is invalid for replicaset", true},
		"SetOtherLabels":    {"ReplicaSet", `{"selector":{"matchLabels":{"app":"x"}}}`, "spec.template: Invalid value: selector does not match template labels", true},
		"SetRestartPolicy":  {"ReplicaSet", `{"template":{"spec":{"restartPolicy":"Never"}}}`, "template.spec.restartPolicy must be Always", true},
		"PodsTwice":         {"ReplicaSet", `{"scaleDown":{"podsToDelete":["a","a"]}}`, `spec.scaleDown.podsToDelete[1]: Duplicate value: "a"`, false},
		"PodNameless":       {"ReplicaSet", `{"scaleDown":{"podsToDelete":[""]}}`, "spec.scaleDown.podsToDelete[0]: Invalid value", false},
	}
	create := func(version, kind, spec string) error {
		base := map[string]any{
			"selector": map[string]any{"matchLabels": map[string]any{"app": "web"}},
			"template": map[string]any{"metadata": map[string]any{"labels": map[string]any{"app": "web"}}, "spec": map[string]any{"containers": []any{map[string]any{"name": "c", "image": "i"}}}},
		}
		var over map[string]any
		if err := json.Unmarshal([]byte(spec), &over); err != nil {
			t.Fatal(err)
		}
		for key, value := range over {
			if key != "template" {
				base[key] = value
				continue
			}
			maps.Copy(base["template"].(map[string]any)["spec"].(map[string]any), value.(map[string]any)["spec"].(map[string]any))
		}
		object := unstructuredOf(version, kind, namespace, base)
		return env.Client.Create(t.Context(), object, client.DryRunAll)
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := create(v1alpha1.GroupVersion.String(), test.kind, test.spec)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if test.apps {
				if err := create("apps/v1", test.kind, test.spec); err == nil {
					t.Error("apps/v1 accepts it")
				}
			}
		})
	}
	if err := create(v1alpha1.GroupVersion.String(), "Deployment", `{}`); err != nil {
		t.Error("a valid one is refused: ", err)
	}
}

func TestSelectorIsImmutable(t *testing.T) {
	w := ours(t)
	w.apply(func(*appsv1.Deployment) {})
	before := w.d.DeepCopy()
	after := before.DeepCopy()
	after.Spec.Selector.MatchLabels["more"], after.Spec.Template.Labels["more"] = "x", "x"
	_, err := w.Deployments.Patch(w.Context(), env.Client, before, after)
	if want := "spec.selector: Invalid value: field is immutable"; err == nil || !strings.Contains(err.Error(), want) {
		if !strings.Contains(fmt.Sprint(err), "the object has been modified") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestDefaults: what is left out is what apps/v1 makes of it.
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

func unstructuredOf(version, kind, namespace string, spec map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": version, "kind": kind, "metadata": map[string]any{"namespace": namespace, "generateName": "invalid-"}, "spec": spec,
	}}
}
