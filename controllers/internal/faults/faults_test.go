// Package faults tests rollouts to which something happens: the API server restarts, a webhook
// refuses, a quota is full, others write the same objects. The rollout ends where it should, with
// nothing lost and nothing doubled.
package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/rest"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/controllers"
	"flyball.dev/controllers/internal/kinds"
	"flyball.dev/controllers/internal/testenv"
)

var env testenv.Env

func TestMain(m *testing.M) {
	testenv.Main(m, &env, func(ctx context.Context, cfg *rest.Config, ready func()) error {
		defer func() { stopAgain() }()
		return controllers.Run(ctx, controllers.Config{Client: cfg, Ready: ready})
	})
}

const (
	size        = 12
	surge       = 3 // 25% of size, rounded up
	unavailable = 3 // 25% of size, rounded down
)

// rollout is one test's Deployment, and what was seen of its Pods.
type rollout struct {
	*testing.T
	kinds.Group
	namespace string
	d         *appsv1.Deployment

	mu     sync.Mutex
	broken []string // bounds that did not hold
	// seen are all Pods that a ReplicaSet ever had. returns says that the rollout returns to one,
	// which creates its Pods again.
	seen    map[types.UID]sets.Set[types.UID]
	returns bool
}

// each runs a test for both groups, with a Deployment that is rolled out.
func each(t *testing.T, test func(r *rollout)) {
	t.Helper()
	env.Each(t, func(t *testing.T, group kinds.Group, namespace string) {
		t.Helper()
		r := begin(t, group, namespace)
		test(r)
	})
}

func begin(t *testing.T, group kinds.Group, namespace string) *rollout {
	t.Helper()
	r := &rollout{T: t, Group: group, namespace: namespace}
	var err error
	if r.d, err = group.Deployments.Create(t.Context(), env.Client, testenv.Deployment(namespace, "web", size)); err != nil {
		t.Fatal(err)
	}
	r.complete("image:1 12")
	r.watch()
	return r
}

func (r *rollout) change(how func(*appsv1.Deployment)) {
	r.Helper()
	testenv.Eventually(r.T, func() error {
		before, _, err := r.Deployments.Get(r.Context(), env.Client, client.ObjectKeyFromObject(r.d))
		if err != nil {
			return err
		}
		after := before.DeepCopy()
		how(after)
		r.d, err = r.Deployments.Patch(r.Context(), env.Client, before, after)
		return err
	})
}

func (r *rollout) image(tag string) {
	r.Helper()
	r.change(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "image:" + tag })
}

// until waits for a status.
func (r *rollout) until(what string, condition func(*appsv1.Deployment) bool) {
	r.Helper()
	testenv.Eventually(r.T, func() (err error) {
		if r.d, _, err = r.Deployments.Get(r.Context(), env.Client, client.ObjectKeyFromObject(r.d)); err != nil {
			return err
		}
		if r.d.Status.ObservedGeneration < r.d.Generation || !condition(r.d) {
			return fmt.Errorf("%s: generation %d, status %+v", what, r.d.Generation, r.d.Status)
		}
		return nil
	})
}

func updated(atLeast int32) func(*appsv1.Deployment) bool {
	return func(d *appsv1.Deployment) bool { return d.Status.UpdatedReplicas >= atLeast }
}

func message(d *appsv1.Deployment, of appsv1.DeploymentConditionType) string {
	for _, c := range d.Status.Conditions {
		if c.Type == of {
			return c.Reason + ": " + c.Message
		}
	}
	return ""
}

// complete waits until the rollout is over, and checks that everything is there once: these
// ReplicaSets, by revision, and as many Pods, each of the template of its ReplicaSet, which
// controls it.
func (r *rollout) complete(history ...string) {
	r.Helper()
	end := func(d *appsv1.Deployment) bool {
		n, s := *d.Spec.Replicas, d.Status
		return s.Replicas == n && s.UpdatedReplicas == n && s.AvailableReplicas == n && message(d, appsv1.DeploymentReplicaFailure) == ""
	}
	// What was refused is tried again ever more rarely, at last once a minute.
	ctx, cancel := context.WithTimeout(r.Context(), 90*time.Second)
	defer cancel()
	for over := false; !over; {
		d, _, err := r.Deployments.Get(ctx, env.Client, client.ObjectKeyFromObject(r.d))
		switch over = err == nil && d.Status.ObservedGeneration >= d.Generation && end(d); {
		case over:
		case ctx.Err() != nil:
			r.Fatalf("the rollout does not complete: %v, %+v", err, d.Status)
		default:
			time.Sleep(20 * time.Millisecond)
		}
	}
	all, err := r.ReplicaSets.List(r.Context(), env.Client, client.InNamespace(r.namespace))
	if err != nil {
		r.Fatal(err)
	}
	slices.SortFunc(all, func(a, b *appsv1.ReplicaSet) int {
		return strings.Compare(a.Annotations["deployment.kubernetes.io/revision"], b.Annotations["deployment.kubernetes.io/revision"])
	})
	var got []string
	want := map[types.UID]int32{}
	for _, set := range all {
		got = append(got, fmt.Sprint(set.Spec.Template.Spec.Containers[0].Image, " ", *set.Spec.Replicas))
		want[set.UID] = *set.Spec.Replicas
	}
	if diff := cmp.Diff(history, got); diff != "" {
		r.Fatalf("ReplicaSets (-want +got):\n%s", diff)
	}
	for _, pod := range env.Pods(r.T, r.namespace, nil) {
		if controller.IsPodActive(&pod) {
			want[metav1.GetControllerOf(&pod).UID]--
		}
	}
	for uid, missing := range want {
		if missing != 0 {
			r.Errorf("ReplicaSet %s lacks %d Pods", uid, missing)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for uid, pods := range r.seen {
		if pods.Len() > size && !r.returns {
			r.Errorf("ReplicaSet %s has had %d Pods for %d", uid, pods.Len(), size)
		}
	}
	if len(r.broken) > 0 {
		r.Errorf("on the way there were %s", strings.Join(r.broken, "; "))
	}
}

// watch checks for as long as the test runs that the ReplicaSets together never want more Pods than
// maxSurge allows, and that no fewer are ready than maxUnavailable allows. It skips what it cannot
// read because the API server is down.
func (r *rollout) watch() {
	ctx, cancel := context.WithCancel(r.Context())
	ended := make(chan struct{})
	r.Cleanup(func() { cancel(); <-ended })
	r.seen = map[types.UID]sets.Set[types.UID]{}
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			var pods corev1.PodList
			all, errSets := r.ReplicaSets.List(ctx, env.Client, client.InNamespace(r.namespace))
			if err := env.Client.List(ctx, &pods, client.InNamespace(r.namespace)); err == nil && errSets == nil {
				r.count(all, pods.Items)
			}
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
}

func (r *rollout) count(all []*appsv1.ReplicaSet, pods []corev1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	wanted, ready := 0, 0
	for _, set := range all {
		wanted += int(*set.Spec.Replicas)
	}
	for i := range pods {
		if ref := metav1.GetControllerOf(&pods[i]); ref != nil {
			if r.seen[ref.UID] == nil {
				r.seen[ref.UID] = sets.New[types.UID]()
			}
			r.seen[ref.UID].Insert(pods[i].UID)
		}
		if controller.IsPodActive(&pods[i]) && podutil.IsPodReady(&pods[i]) {
			ready++
		}
	}
	if wanted > size+surge || ready < size-unavailable {
		r.broken = append(r.broken, fmt.Sprintf("%d Pods wanted, %d ready", wanted, ready))
	}
}

// TestOthersWriteTheSameObjects: another client writes annotations of the Deployment, its
// ReplicaSets and its Pods all the time, so that many of the loops' own writes conflict.
func TestOthersWriteTheSameObjects(t *testing.T) {
	each(t, func(r *rollout) {
		r.returns = true
		ctx, cancel := context.WithCancel(r.Context())
		var busy sync.WaitGroup
		var written int
		busy.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{"example.com/n":"%d"}}}`, i))
				d := r.Deployments.New()
				d.SetNamespace(r.namespace)
				d.SetName("web")
				objects := []client.Object{d}
				all, _ := r.ReplicaSets.List(ctx, env.Client, client.InNamespace(r.namespace))
				for _, set := range all {
					object := r.ReplicaSets.New()
					object.SetNamespace(r.namespace)
					object.SetName(set.Name)
					objects = append(objects, object)
				}
				for _, object := range objects {
					if env.Client.Patch(ctx, object, patch) == nil {
						written++
					}
				}
			}
		})
		defer func() { cancel(); busy.Wait() }()
		r.image("2")
		r.until("half way", updated(4))
		r.image("3") // and its user changes his mind
		r.until("half way", updated(4))
		r.change(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "image:2" })
		r.complete("image:1 0", "image:3 0", "image:2 12")
		cancel()
		busy.Wait()
		if written < 10 {
			r.Errorf("only %d other writes", written)
		}
	})
}

// TestQuotaIsFullInMidRollout: without quota for a surge the rollout goes on as far as
// maxUnavailable lets it, which here is to its end; without any quota it says so, and goes on by
// itself once there is.
func TestQuotaIsFullInMidRollout(t *testing.T) {
	each(t, func(r *rollout) {
		quota := r.quota(size)
		r.image("2")
		r.complete("image:1 0", "image:2 12")

		r.change(func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].Image = "image:3"
			d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxUnavailable: new(intstr.FromInt32(0)), MaxSurge: new(intstr.FromInt32(1))}
		})
		r.until("the quota is reported", func(d *appsv1.Deployment) bool {
			return strings.Contains(message(d, appsv1.DeploymentReplicaFailure), "FailedCreate: pods ") &&
				strings.Contains(message(d, appsv1.DeploymentReplicaFailure), "exceeded quota: full") && d.Status.AvailableReplicas == size
		})
		testenv.Eventually(r.T, func() error { return said(env.Events(r.T, r.owned("image:3"))["FailedCreate"], "exceeded quota") })
		quota(size + 1)
		r.complete("image:1 0", "image:2 0", "image:3 12")
	})
}

// owned is the ReplicaSet of an image.
func (r *rollout) owned(image string) *appsv1.ReplicaSet {
	r.Helper()
	all, err := r.ReplicaSets.List(r.Context(), env.Client, client.InNamespace(r.namespace))
	if err != nil {
		r.Fatal(err)
	}
	for _, set := range all {
		if set.Spec.Template.Spec.Containers[0].Image == image {
			return set
		}
	}
	r.Fatalf("there is no ReplicaSet of %s", image)
	return nil
}

// quota allows so many Pods, and returns what changes that. It counts them as upstream's controller
// does, which envtest has not: the API server itself only counts up.
func (r *rollout) quota(n int) (change func(n int)) {
	r.Helper()
	limit := make(chan int, 1)
	limit <- n
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "full"}}
	if err := env.Client.Create(r.Context(), quota); err != nil {
		r.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.Context())
	counted, ended := make(chan struct{}), make(chan struct{})
	r.Cleanup(func() { cancel(); <-ended })
	go func() {
		defer close(ended)
		var once sync.Once
		for ctx.Err() == nil {
			if r.recount(ctx, limit) == nil {
				once.Do(func() { close(counted) })
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	<-counted
	return func(n int) { <-limit; limit <- n }
}

// recount writes how many Pods there are; those that are being deleted still count.
func (r *rollout) recount(ctx context.Context, limit chan int) error {
	var quota corev1.ResourceQuota
	var pods corev1.PodList
	// The quota is read first: if a Pod is admitted after that, writing it is a conflict.
	err := errors.Join(
		env.Client.Get(ctx, client.ObjectKey{Namespace: r.namespace, Name: "full"}, &quota),
		env.Client.List(ctx, &pods, client.InNamespace(r.namespace)),
	)
	if err != nil {
		return err
	}
	n := <-limit
	limit <- n
	hard, used := testenv.PodCount(n), testenv.PodCount(len(pods.Items))
	if quota.Spec.Hard.Pods().Cmp(*hard.Pods()) != 0 {
		quota.Spec.Hard = hard
		if err := env.Client.Update(ctx, &quota); err != nil {
			return err
		}
	}
	quota.Status = corev1.ResourceQuotaStatus{Hard: hard, Used: used}
	return env.Client.Status().Update(ctx, &quota)
}
