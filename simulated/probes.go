package simulated

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"

	"flyball.dev/kubelet/probes"
)

// asker answers probes by the present annotations of the Pod, for all kinds of handlers.
type asker struct{ pods *podSource }

func (a asker) Ask(_ context.Context, pod *v1.Pod, t probes.Target, kind probes.Kind, _ *v1.Probe) (bool, string, error) {
	if now, ok := a.pods.Pod(pod.Namespace, pod.Name); ok && now.UID == pod.UID {
		pod = now
	}
	does, err := behaviourOf(pod, t.Container)
	if err != nil {
		return false, "", err
	}
	if does.probes[kind].at(time.Since(t.StartedAt)) {
		return true, "", nil
	}
	return false, fmt.Sprintf("simulated failure of the %s probe of container %q", kind, t.Container), nil
}
