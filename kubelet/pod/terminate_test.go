package pod

import (
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/pod/plan"
)

var evicted = plan.Termination{
	Reason: "Evicted", Message: "The node was low on resource: memory. ",
	Disruption: "The node was low on resource: memory. ", GracePeriodSeconds: ptr.To[int64](7),
}

// checkEvicted waits until the Pod has failed, and compares what its status says about the reason.
func (r *rig) checkEvicted() {
	r.t.Helper()
	r.eventually("the Pod has failed", r.phase(v1.PodFailed))
	st := r.pod().Status
	if st.Reason != evicted.Reason || st.Message != evicted.Message {
		r.t.Errorf("the Pod failed with the reason %q and the message %q", st.Reason, st.Message)
	}
	_, c := podutil.GetPodCondition(&st, v1.DisruptionTarget)
	if c == nil || c.Status != v1.ConditionTrue || c.Reason != v1.PodReasonTerminationByKubelet || c.Message != evicted.Disruption {
		r.t.Errorf("the condition DisruptionTarget is %+v", c)
	}
	if cs := st.ContainerStatuses; len(cs) != 1 || cs[0].State.Terminated == nil {
		r.t.Errorf("the containers are %+v", cs)
	}
}

func TestTerminate(t *testing.T) {
	r := newRig(t)
	r.start()
	if r.manager.Terminate("u1", evicted) {
		t.Error("a Pod that the node does not run was terminated")
	}
	r.create(nil)
	r.eventually("the Pod runs", r.phase(v1.PodRunning))
	if !r.manager.Terminate("u1", evicted) {
		t.Error("the node does not know the Pod")
	}
	r.manager.Terminate("u1", plan.Termination{Reason: "Preempting"}) // the first decision stays
	r.event("Warning Evicted The node was low on resource: memory. ")
	r.checkEvicted()
	r.runtime.mu.Lock()
	graces := slices.Clone(r.runtime.graces)
	r.runtime.mu.Unlock()
	if !slices.Equal(graces, []int64{7}) {
		t.Errorf("the containers got the grace periods %v, in seconds", graces)
	}
	r.manager.Terminate("u1", plan.Termination{Reason: "Preempting"}) // the Pod has ended
	r.delete(0)
	r.nothingLeft()
}

// TestTerminateSurvivesARestart kills the agent after a decision while the containers end.
func TestTerminateSurvivesARestart(t *testing.T) {
	r := newRig(t)
	r.runtime.obstinate = true
	r.start()
	r.create(nil)
	r.eventually("the Pod runs", r.phase(v1.PodRunning))
	r.manager.Terminate("u1", evicted)
	r.eventually("the decision is recorded", func() bool { return r.pod().Status.Reason == "Evicted" })
	if phase := r.pod().Status.Phase; phase != v1.PodRunning {
		t.Errorf("the Pod is %s while its containers run", phase)
	}
	r.stop()
	r.runtime.exit("u1", 0)
	r.start()
	r.checkEvicted()
	if n := r.runtime.startCount(); n != 1 {
		t.Errorf("%d containers were started", n)
	}
	r.delete(0)
	r.nothingLeft()
}

// TestDeadline ends a Pod that has been active for longer than its activeDeadlineSeconds.
func TestDeadline(t *testing.T) {
	r := newRig(t)
	r.start()
	r.create(func(p *v1.Pod) {
		p.Spec.ActiveDeadlineSeconds = ptr.To[int64](60)
		p.Status.StartTime = &metav1.Time{Time: time.Now().Add(-58 * time.Second)}
	})
	r.event("Normal DeadlineExceeded Pod was active on the node longer than the specified deadline")
	r.eventually("the Pod has failed", r.phase(v1.PodFailed))
	if reason := r.pod().Status.Reason; reason != "DeadlineExceeded" {
		t.Errorf("the reason is %q", reason)
	}
	r.delete(0)
	r.nothingLeft()
}
