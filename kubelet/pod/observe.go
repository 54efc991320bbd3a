package pod

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/pod/plan"
	"flyball.dev/kubelet/probes"
)

func (w *worker) observe(ctx context.Context) error {
	if w.dirty {
		seen, err := w.m.cfg.Runtime.Observe(ctx, w.uid)
		if err != nil {
			return err
		}
		w.state.Runtime, w.dirty = withCutOffStarts(seen, w.state.LastStatus()), false
	}
	if w.state.Pod == nil {
		w.m.cfg.Probes.Remove(w.uid)
		w.state.Probes = nil
		return nil
	}
	ip := lo.FirstOrEmpty(w.state.PodIPs())
	w.m.cfg.Probes.Set(w.state.Pod, lo.Map(w.state.Running(), func(c cri.Container, _ int) probes.Target {
		return probes.Target{Container: c.Name, ContainerID: c.ID, StartedAt: c.StartedAt, PodIP: ip}
	}))
	w.state.Probes = w.m.cfg.Probes.Results(w.uid)
	return nil
}

// withCutOffStarts reports a container whose start was cut off as created. When the agent ends,
// containerd cancels the start and reports an exit with code 128. The container has not failed, and
// must not fail a Pod with the restart policy Never.
//
// A container, or a whole Pod, whose end was reported stays as it is: the API server refuses the
// way back.
func withCutOffStarts(p cri.Pod, reported v1.PodStatus) cri.Pod {
	if podutil.IsPodPhaseTerminal(reported.Phase) {
		return p
	}
	for i := range p.Containers {
		c := &p.Containers[i]
		isReported := func(s v1.ContainerStatus) bool {
			return s.State.Terminated != nil && cri.BareID(s.State.Terminated.ContainerID) == c.ID
		}
		if c.State == cri.Exited && c.Reason == "StartError" && strings.HasSuffix(c.Message, context.Canceled.Error()) &&
			!slices.ContainsFunc(plan.ContainerStatuses(&reported), isReported) {
			c.State, c.ExitCode, c.Reason, c.Message, c.FinishedAt = cri.Created, 0, "", "", time.Time{}
		}
	}
	return p
}
