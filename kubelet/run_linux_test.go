package kubelet

import (
	"context"
	"testing"
	"testing/synctest"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/util/workqueue"

	"flyball.dev/kubelet/pod"
)

// TestVolumeChanges: all Pods are passed on, and the component ends with its context.
func TestVolumeChanges(t *testing.T) {
	pods := pod.New(pod.Config{NodeName: "n1", Client: fake.NewClientset()})
	synctest.Test(t, func(t *testing.T) {
		c := volumeChanges{workqueue.NewTyped[types.UID](), pods}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		c.queue.Add("u1")
		c.queue.Add("u2")
		synctest.Wait()
		if n := c.queue.Len(); n > 0 {
			t.Errorf("%d Pods were not passed on", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}
