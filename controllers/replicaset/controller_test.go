package replicaset_test

import (
	"context"
	"fmt"
	"testing"

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
		set, err := group.ReplicaSets.Create(t.Context(), env.Client, testenv.ReplicaSet(namespace, "web", 3))
		if err != nil {
			t.Fatal(err)
		}
		for _, replicas := range []int32{3, 7, 2, 0} {
			if *set.Spec.Replicas != replicas {
				after := set.DeepCopy()
				after.Spec.Replicas = ptr.To(replicas)
				if _, err := group.ReplicaSets.Patch(t.Context(), env.Client, set, after); err != nil {
					t.Fatal(err)
				}
			}
			testenv.Eventually(t, func() error {
				if set, err = group.ReplicaSets.Get(t.Context(), env.Client, client.ObjectKeyFromObject(set)); err != nil {
					return err
				}
				s := set.Status
				if s.Replicas != replicas || s.AvailableReplicas != replicas || s.FullyLabeledReplicas != replicas ||
					s.ReadyReplicas != replicas || ptr.Deref(s.TerminatingReplicas, -1) != 0 || s.ObservedGeneration != set.Generation {
					return fmt.Errorf("want %d: %+v", replicas, s)
				}
				return nil
			})
			if pods := env.Pods(t, namespace, nil); len(pods) != int(replicas) {
				t.Fatalf("%d Pods, want %d", len(pods), replicas)
			}
		}
	})
}
