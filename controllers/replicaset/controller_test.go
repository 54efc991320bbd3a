package replicaset_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
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

func TestCreatesAndScales(t *testing.T) {
	env.Each(t, func(t *testing.T, group kinds.Group, namespace string) {
		t.Helper()
		set := create(t, group, testenv.ReplicaSet(namespace, "web", 3))
		for _, n := range []int32{3, 7, 2, 0} {
			apply(t, group, set, func(set *appsv1.ReplicaSet) { set.Spec.Replicas = new(n) })
			expect(t, group, set, fmt.Sprint(n, " Pods"), func(s appsv1.ReplicaSetStatus) bool {
				return ready(n)(s) && s.AvailableReplicas == n && s.FullyLabeledReplicas == n && ptr.Deref(s.TerminatingReplicas, -1) == 0
			})
			if pods := env.Pods(t, namespace, nil); len(pods) != int(n) {
				t.Fatalf("%d Pods, want %d", len(pods), n)
			}
		}
	})
}

func apply(t *testing.T, group kinds.Group, set *appsv1.ReplicaSet, change func(*appsv1.ReplicaSet)) *appsv1.ReplicaSet {
	t.Helper()
	var stored *appsv1.ReplicaSet
	testenv.Eventually(t, func() error {
		before, _, err := group.ReplicaSets.Get(t.Context(), env.Client, client.ObjectKeyFromObject(set))
		if err != nil {
			return err
		}
		after := before.DeepCopy()
		change(after)
		stored, err = group.ReplicaSets.Patch(t.Context(), env.Client, before, after)
		return err
	})
	return stored
}

// expect waits until the ReplicaSet's status satisfies a condition.
func expect(t *testing.T, group kinds.Group, set *appsv1.ReplicaSet, what string, condition func(appsv1.ReplicaSetStatus) bool) *appsv1.ReplicaSet {
	t.Helper()
	var current *appsv1.ReplicaSet
	testenv.Eventually(t, func() (err error) {
		if current, _, err = group.ReplicaSets.Get(t.Context(), env.Client, client.ObjectKeyFromObject(set)); err != nil {
			return err
		}
		if s := current.Status; s.ObservedGeneration < current.Generation || !condition(s) {
			return fmt.Errorf("%s: %+v", what, s)
		}
		return nil
	})
	return current
}

func create(t *testing.T, group kinds.Group, set *appsv1.ReplicaSet) *appsv1.ReplicaSet {
	t.Helper()
	created, err := group.ReplicaSets.Create(t.Context(), env.Client, set)
	if err != nil {
		t.Fatal("creating a ReplicaSet:", err)
	}
	return created
}

func orphan(t *testing.T, namespace, name, app string) *corev1.Pod {
	t.Helper()
	template := testenv.Template(map[string]string{"app": app}, "image:1")
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Namespace, pod.Name = namespace, name
	if err := env.Client.Create(t.Context(), pod); err != nil {
		t.Fatal("creating a Pod:", err)
	}
	return pod
}

func ready(n int32) func(appsv1.ReplicaSetStatus) bool {
	return func(s appsv1.ReplicaSetStatus) bool { return s.Replicas == n && s.ReadyReplicas == n }
}

func TestScaleDownTakesNamedPods(t *testing.T) {
	t.Parallel()
	group, namespace := env.Groups["flyball"], env.Namespace(t)
	set := create(t, group, testenv.ReplicaSet(namespace, "web", 4))
	expect(t, group, set, "4 Pods", ready(4))
	pods := env.Pods(t, namespace, nil)
	for i := range pods[:2] { // the cost says that these are the last to go
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"controller.kubernetes.io/pod-deletion-cost":"100"}}}`))
		if err := env.Client.Patch(t.Context(), &pods[i], patch); err != nil {
			t.Fatal(err)
		}
	}
	object := group.ReplicaSets.New()
	object.SetNamespace(namespace)
	object.SetName("web")
	patch := fmt.Sprintf(`{"spec":{"replicas":2,"scaleDown":{"podsToDelete":[%q,%q]}}}`, pods[0].Name, pods[1].Name)
	if err := env.Client.Patch(t.Context(), object, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Fatal(err)
	}
	expect(t, group, set, "2 Pods", ready(2))
	for _, left := range env.Pods(t, namespace, nil) {
		if left.DeletionTimestamp == nil && (left.Name == pods[0].Name || left.Name == pods[1].Name) {
			t.Errorf("Pod %s is left, although it was named", left.Name)
		}
	}
}

func TestPodsAreOurs(t *testing.T) {
	env.Each(t, func(t *testing.T, group kinds.Group, namespace string) {
		t.Helper()
		set := create(t, group, testenv.ReplicaSet(namespace, "web", 2))
		expect(t, group, set, "2 Pods", ready(2))
		want := metav1.OwnerReference{
			APIVersion: group.ReplicaSets.GroupVersionKind.GroupVersion().String(), Kind: "ReplicaSet", Name: "web",
			UID: set.UID, Controller: new(true), BlockOwnerDeletion: new(true),
		}
		var messages []string
		for _, pod := range env.Pods(t, namespace, nil) {
			if diff := cmp.Diff([]metav1.OwnerReference{want}, pod.OwnerReferences); diff != "" {
				t.Errorf("owner references (-want +got):\n%s", diff)
			}
			messages = append(messages, "Created pod: "+pod.Name)
		}
		testenv.Eventually(t, func() error {
			got := env.Events(t, set)["SuccessfulCreate"]
			slices.Sort(got)
			slices.Sort(messages)
			if diff := cmp.Diff(messages, got); diff != "" {
				return fmt.Errorf("Events (-want +got):\n%s", diff)
			}
			return nil
		})
	})
}

func TestReplacesAndAdoptsAndReleases(t *testing.T) {
	env.Each(t, func(t *testing.T, group kinds.Group, namespace string) {
		t.Helper()
		matching, other := orphan(t, namespace, "matching", "web"), orphan(t, namespace, "other", "else")
		set := create(t, group, testenv.ReplicaSet(namespace, "web", 2))
		expect(t, group, set, "an orphan and a new Pod", ready(2))
		pods := env.Pods(t, namespace, map[string]string{"app": "web"})
		if len(pods) != 2 || !slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.UID == matching.UID && metav1.IsControlledBy(&p, set) }) {
			t.Fatalf("the orphan was not adopted: %v", pods)
		}

		// A Pod that is made not to match is let go and replaced.
		released := matching.DeepCopy()
		released.Labels["app"] = "else"
		if err := env.Client.Patch(t.Context(), released, client.MergeFrom(matching)); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, func() error {
			for _, name := range []string{matching.Name, other.Name} {
				var pod corev1.Pod
				if err := env.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, &pod); err != nil {
					return err
				}
				if len(pod.OwnerReferences) > 0 {
					return fmt.Errorf("%s is owned by %v", pod.Name, pod.OwnerReferences)
				}
			}
			if n := len(env.Pods(t, namespace, map[string]string{"app": "web"})); n != 2 {
				return fmt.Errorf("%d Pods", n)
			}
			return nil
		})

		// A Pod that is deleted is replaced.
		victim := env.Pods(t, namespace, map[string]string{"app": "web"})[0]
		if err := env.Client.Delete(t.Context(), &victim); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, func() error {
			pods := env.Pods(t, namespace, map[string]string{"app": "web"})
			if len(pods) != 2 || slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.UID == victim.UID }) {
				return fmt.Errorf("%d Pods", len(pods))
			}
			return nil
		})
	})
}

func TestGroupsDoNotFight(t *testing.T) {
	t.Parallel()
	namespace := env.Namespace(t)
	var sets []*appsv1.ReplicaSet
	for _, name := range []string{"apps", "flyball"} {
		sets = append(sets, create(t, env.Groups[name], testenv.ReplicaSet(namespace, "web", 3)))
	}
	for i, name := range []string{"apps", "flyball"} {
		expect(t, env.Groups[name], sets[i], "3 Pods of its own", ready(3))
	}
	if n := len(env.Pods(t, namespace, map[string]string{"app": "web"})); n != 6 {
		t.Fatalf("%d Pods, want 6", n)
	}
}

func TestQuotaIsReportedAndRecovered(t *testing.T) {
	env.Each(t, func(t *testing.T, group kinds.Group, namespace string) {
		t.Helper()
		limit(t, namespace, 2)
		set := create(t, group, testenv.ReplicaSet(namespace, "web", 3))
		failed := func(s appsv1.ReplicaSetStatus) bool {
			return len(s.Conditions) == 1 && s.Conditions[0].Type == appsv1.ReplicaSetReplicaFailure && s.Conditions[0].Reason == "FailedCreate" &&
				strings.Contains(s.Conditions[0].Message, "exceeded quota")
		}
		expect(t, group, set, "the quota is reported", failed)
		apply(t, group, set, func(set *appsv1.ReplicaSet) { set.Spec.Replicas = ptr.To[int32](2) })
		expect(t, group, set, "the failure is over", func(s appsv1.ReplicaSetStatus) bool { return len(s.Conditions) == 0 && ready(2)(s) })
	})
}

// limit lets a namespace have n Pods, and returns when the API server knows: it learns of quotas by
// a watch. A quota of none tells that, without being used up.
func limit(t *testing.T, namespace string, n int) {
	t.Helper()
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "pods"}, Spec: corev1.ResourceQuotaSpec{Hard: testenv.PodCount(0)}}
	if err := env.Client.Create(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	set := func(n int) {
		quota.Spec.Hard = testenv.PodCount(n)
		if err := env.Client.Update(t.Context(), quota); err != nil {
			t.Fatal(err)
		}
		quota.Status = corev1.ResourceQuotaStatus{Hard: testenv.PodCount(n), Used: testenv.PodCount(0)}
		if err := env.Client.Status().Update(t.Context(), quota); err != nil { // nobody else does in envtest
			t.Fatal(err)
		}
	}
	set(0)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "refused"}, Spec: testenv.Template(nil, "image").Spec}
	testenv.Eventually(t, func() error {
		err := env.Client.Create(t.Context(), pod.DeepCopy(), client.DryRunAll)
		switch {
		case err == nil:
			return errors.New("the API server takes a Pod beyond the quota")
		case !strings.Contains(err.Error(), "exceeded quota"):
			return err
		}
		return nil
	})
	set(n)
}

func TestMinReadySeconds(t *testing.T) {
	env.Each(t, func(t *testing.T, group kinds.Group, namespace string) {
		t.Helper()
		set := testenv.ReplicaSet(namespace, "web", 2)
		set.Spec.MinReadySeconds = 3600
		set = create(t, group, set)
		expect(t, group, set, "ready and not available", func(s appsv1.ReplicaSetStatus) bool { return ready(2)(s) && s.AvailableReplicas == 0 })
		apply(t, group, set, func(set *appsv1.ReplicaSet) { set.Spec.MinReadySeconds = 2 })
		expect(t, group, set, "available by the passing of time", func(s appsv1.ReplicaSetStatus) bool { return s.AvailableReplicas == 2 })
	})
}

func TestSelectorOfOurKindIsValidated(t *testing.T) {
	t.Parallel()
	namespace, group := env.Namespace(t), env.Groups["flyball"]
	tests := map[string]func(*appsv1.ReplicaSet){
		"does not match template labels": func(set *appsv1.ReplicaSet) { set.Spec.Template.Labels = map[string]string{"app": "else"} },
		"empty selector is invalid":      func(set *appsv1.ReplicaSet) { set.Spec.Selector = &metav1.LabelSelector{} },
		"restartPolicy must be Always":   func(set *appsv1.ReplicaSet) { set.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever },
		"greater than or equal to 0":     func(set *appsv1.ReplicaSet) { set.Spec.Replicas = ptr.To[int32](-1) },
	}
	for want, mutate := range tests {
		set := testenv.ReplicaSet(namespace, "web", 1)
		mutate(set)
		if _, err := group.ReplicaSets.Create(t.Context(), env.Client, set); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	set := create(t, group, testenv.ReplicaSet(namespace, "web", 0))
	testenv.Eventually(t, func() error {
		before, _, err := group.ReplicaSets.Get(t.Context(), env.Client, client.ObjectKeyFromObject(set))
		if err != nil {
			return err
		}
		after := before.DeepCopy()
		after.Spec.Selector.MatchLabels["app"], after.Spec.Template.Labels["app"] = "else", "else"
		if _, err := group.ReplicaSets.Patch(t.Context(), env.Client, before, after); err == nil || !strings.Contains(err.Error(), "field is immutable") {
			return fmt.Errorf("changing the selector: got %w", err)
		}
		return nil
	})
}
