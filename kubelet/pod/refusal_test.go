package pod

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
)

// TestEndDoesNotWaitForARefusedStatus lets a policy deny every status of a Pod that is deleted, and
// its deletion once.
func TestEndDoesNotWaitForARefusedStatus(t *testing.T) {
	r := newRig(t)
	r.start()
	r.create(nil)
	r.eventually("the Pod runs", r.phase(v1.PodRunning))
	denied := apierrors.NewBadRequest(`admission webhook "no.example.com" denied the request`)
	deletions := 0 // the fake API asks one after the other
	r.api.PrependReactor("patch", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		return a.GetSubresource() == "status", nil, denied
	})
	r.api.PrependReactor("delete", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		deletions++
		return deletions == 1, nil, denied
	})
	r.delete(30)
	r.event("Warning FailedStatusUpdate writing the status: " + denied.Error())
	r.event("Warning FailedKillPod error killing pod: the API server refuses to delete it: " + denied.Error())
	r.nothingLeft()
}

// TestRunWaitsForWhatItBegan ends the agent while an action is under way that does not end at once.
func TestRunWaitsForWhatItBegan(t *testing.T) {
	r := newRig(t)
	r.node.slow.Store(true)
	r.start()
	r.create(nil)
	r.eventually("a mount is under way", r.node.begun.Load)
	r.stop()
	if !r.node.ended.Load() {
		t.Error("Run returned while the mount that it began was under way")
	}
}
