package controllers_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers"
	"flyball.dev/controllers/internal/testenv"
)

var env testenv.Env

// Only our own kinds are served here at first, as in a cluster that is not Flyball's.
func TestMain(m *testing.M) {
	testenv.Main(m, &env, func(ctx context.Context, cfg *rest.Config, ready func()) error {
		return controllers.Run(ctx, controllers.Config{
			Client: cfg, Ready: ready, LeaderElection: true,
			Kinds: []schema.GroupVersion{v1alpha1.GroupVersion},
		})
	})
}

func TestServesTheKindsItIsToldTo(t *testing.T) {
	namespace := env.Namespace(t)
	set := testenv.ReplicaSet(namespace, "theirs", 2)
	if _, err := env.Groups["apps"].ReplicaSets.Create(t.Context(), env.Client, set); err != nil {
		t.Fatal(err)
	}
	if _, err := env.Groups["flyball"].ReplicaSets.Create(t.Context(), env.Client, testenv.ReplicaSet(namespace, "ours", 2)); err != nil {
		t.Fatal(err)
	}
	running := func(app string, want int) {
		testenv.Eventually(t, func() error {
			if n := len(env.Pods(t, namespace, map[string]string{"app": app})); n != want {
				return fmt.Errorf("%d Pods of %s, want %d", n, app, want)
			}
			return nil
		})
	}
	running("ours", 2)
	if n := len(env.Pods(t, namespace, map[string]string{"app": "theirs"})); n != 0 {
		t.Fatalf("%d Pods for a kind that is not ours to serve", n)
	}

	// A second manager in the same process takes the other kind.
	ctx, cancel := context.WithCancel(t.Context())
	ended, ready := make(chan error, 1), make(chan struct{})
	go func() {
		ended <- controllers.Run(ctx, controllers.Config{Client: env.Admin, Kinds: []schema.GroupVersion{appsv1.SchemeGroupVersion}, Ready: func() { close(ready) }})
	}()
	<-ready
	running("theirs", 2)
	start := time.Now()
	cancel()
	if err := <-ended; err != nil {
		t.Fatal("after the end of its context Run returned: ", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Fatalf("Run took %v to end", d)
	}
}

func TestUnknownKind(t *testing.T) {
	err := controllers.Run(t.Context(), controllers.Config{Client: env.Admin, Kinds: []schema.GroupVersion{{Group: "batch", Version: "v1"}}})
	if err == nil {
		t.Fatal("no error for a kind that no loop serves")
	}
}

// BenchmarkScaleUp is the time from 0 to 1000 Pods in the API.
func BenchmarkScaleUp(b *testing.B) {
	group := env.Groups["flyball"]
	for range b.N {
		set := testenv.ReplicaSet("default", fmt.Sprint("bench-", time.Now().UnixNano()), 1000)
		set.Spec.Template.Spec.NodeName = "nowhere" // bound already: the tests' kubelet leaves it alone
		set.Spec.Template.Annotations = map[string]string{testenv.Behaviour: testenv.Ignored}
		created, err := group.ReplicaSets.Create(b.Context(), env.Client, set)
		if err != nil {
			b.Fatal(err)
		}
		for {
			current, err := group.ReplicaSets.Get(b.Context(), env.Client, client.ObjectKeyFromObject(created))
			if err != nil {
				b.Fatal(err)
			}
			if current.Status.Replicas == 1000 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		current, _ := group.ReplicaSets.Get(b.Context(), env.Client, client.ObjectKeyFromObject(created))
		after := current.DeepCopy()
		after.Spec.Replicas = ptr.To[int32](0)
		_, _ = group.ReplicaSets.Patch(b.Context(), env.Client, current, after)
	}
}
