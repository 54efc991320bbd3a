package pod

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

// TestRestartAllContainers does it on the fake runtime, with an agent that is killed half-way.
func TestRestartAllContainers(t *testing.T) {
	r := newRig(t)
	r.start()
	r.create(func(p *v1.Pod) {
		p.Spec.RestartPolicy = v1.RestartPolicyNever
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: "other", Image: "flyball.dev/hello:1"})
		p.Spec.Containers[0].RestartPolicy = ptr.To(v1.ContainerRestartPolicyNever)
		p.Spec.Containers[0].RestartPolicyRules = []v1.ContainerRestartRule{{
			Action:    v1.ContainerRestartRuleActionRestartAllContainers,
			ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}},
		}}
	})
	r.eventually("the Pod runs", r.phase(v1.PodRunning))
	before := r.pod().Status.PodIP
	r.stop()
	r.runtime.change("u1", func(p *cri.Pod) {
		for i := range p.Containers {
			if c := &p.Containers[i]; c.Name == "main" {
				c.State, c.ExitCode, c.FinishedAt = cri.Exited, 42, time.Now()
			}
		}
	})
	r.start()
	r.eventually("all containers run again", func() bool {
		for _, cs := range r.pod().Status.ContainerStatuses {
			last := cs.LastTerminationState.Terminated
			if cs.State.Running == nil || cs.RestartCount != 1 || last == nil || last.Reason != "RestartingAllContainers" {
				return false
			}
		}
		_, c := podutil.GetPodCondition(&r.pod().Status, v1.AllContainersRestarting)
		return c.Status == v1.ConditionFalse
	})
	if ip := r.pod().Status.PodIP; ip != before || len(r.runtime.pods["u1"].Sandboxes) != 1 {
		t.Errorf("the Pod had the address %s, now %s", before, ip)
	}
	r.delete(1)
	r.nothingLeft()
}
