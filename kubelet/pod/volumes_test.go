package pod

import (
	"errors"
	"testing"

	v1 "k8s.io/api/core/v1"

	"flyball.dev/kubelet/volumes"
)

// TestVolumesThatWait: an attachment takes a moment and is not worth an Event; a failure is.
func TestVolumesThatWait(t *testing.T) {
	r := newRig(t)
	r.node.noMount = []error{
		errors.Join(&volumes.Error{Message: "not attached", Waiting: true}),
		errors.Join(&volumes.Error{Message: "no such key"}),
	}
	r.start()
	r.create(nil)
	r.eventually("the Pod runs", r.phase(v1.PodRunning))
	for {
		select {
		case e := <-r.events.Events:
			switch e {
			case "Warning FailedMount not attached":
				t.Error("an Event for a volume that waits")
			case "Warning FailedMount no such key":
				return
			}
		default:
			t.Fatal("no Event for the failure")
		}
	}
}

// TestVolumeRefused: a Pod whose volume this node can never have fails, so that a controller makes
// another one.
func TestVolumeRefused(t *testing.T) {
	r := newRig(t)
	refused := &volumes.RefusedError{Reason: "VolumeAttachmentLimitExceeded", Message: "all slots are taken"}
	r.node.noMount = []error{errors.Join(&volumes.Error{Message: "no room", Err: refused})}
	r.start()
	r.create(nil)
	r.eventually("the Pod has failed", r.phase(v1.PodFailed))
	if st := r.pod().Status; st.Reason != refused.Reason || st.Message != "Pod was rejected: all slots are taken" {
		t.Errorf("the Pod failed with the reason %q and the message %q", st.Reason, st.Message)
	}
	r.delete(0)
	r.nothingLeft()
}
