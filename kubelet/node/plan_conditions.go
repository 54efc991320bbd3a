package node

import (
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// runtimeGrace is how long a runtime that has answered before may be silent until the Node is
	// reported NotReady: a restart of containerd takes a second or two, disturbs no container, and
	// must not remove the Pods from their Services.
	runtimeGrace = 30 * time.Second
	// PressureTransitionPeriod is how long a pressure condition outlives its cause, so that a node
	// at the threshold does not flap.
	PressureTransitionPeriod = 5 * time.Minute
	// inodesReserved of the file system are for DiskPressure only: nothing requests inodes.
	inodesReserved = 0.05
)

// Reasons and messages of the Node's conditions are upstream's: people and alerts search for them.
const (
	reasonReady     = "KubeletReady"
	reasonNotReady  = "KubeletNotReady"
	messageReady    = "kubelet is posting ready status"
	runtimeNotAsked = "container runtime status check may not have completed yet"
	runtimeDown     = "container runtime is down"
)

// pressureTexts are the reason and the message of a pressure condition that is False, and True.
var pressureTexts = map[v1.NodeConditionType][2]struct{ reason, message string }{
	v1.NodeMemoryPressure: {
		{"KubeletHasSufficientMemory", "kubelet has sufficient memory available"},
		{"KubeletHasInsufficientMemory", "kubelet has insufficient memory available"},
	},
	v1.NodeDiskPressure: {
		{"KubeletHasNoDiskPressure", "kubelet has no disk pressure"},
		{"KubeletHasDiskPressure", "kubelet has disk pressure"},
	},
	v1.NodePIDPressure: {
		{"KubeletHasSufficientPID", "kubelet has sufficient PID available"},
		{"KubeletHasInsufficientPID", "kubelet has insufficient PID available"},
	},
}

// setConditions sets all conditions of ours, Ready last, as upstream does.
func setConditions(status *v1.NodeStatus, s state, now time.Time) {
	for _, kind := range []v1.NodeConditionType{v1.NodeMemoryPressure, v1.NodeDiskPressure, v1.NodePIDPressure} {
		setCondition(status, pressureCondition(kind, s, now), now)
	}
	setCondition(status, readyCondition(s.runtime, now), now)
}

// setCondition replaces the condition of that type. The time of the transition stays unless the
// status changed.
func setCondition(status *v1.NodeStatus, c v1.NodeCondition, now time.Time) {
	c.LastHeartbeatTime, c.LastTransitionTime = metav1.NewTime(now), metav1.NewTime(now)
	i := slices.IndexFunc(status.Conditions, func(has v1.NodeCondition) bool { return has.Type == c.Type })
	if i < 0 {
		status.Conditions = append(status.Conditions, c)
		return
	}
	if status.Conditions[i].Status == c.Status {
		c.LastTransitionTime = status.Conditions[i].LastTransitionTime
	}
	status.Conditions[i] = c
}

// condition returns the Node's condition of a type, without a status if there is none.
func condition(n *v1.Node, kind v1.NodeConditionType) v1.NodeCondition {
	if n != nil {
		for _, c := range n.Status.Conditions {
			if c.Type == kind {
				return c
			}
		}
	}
	return v1.NodeCondition{Type: kind}
}

func readyCondition(r runtimeState, now time.Time) v1.NodeCondition {
	problems := r.problems(now)
	c := v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionFalse, Reason: reasonNotReady}
	switch len(problems) {
	case 0:
		c.Status, c.Reason, c.Message = v1.ConditionTrue, reasonReady, messageReady
	case 1:
		c.Message = problems[0]
	default:
		c.Message = "[" + strings.Join(problems, ", ") + "]"
	}
	return c
}

// problems of the runtime that make the Node NotReady.
func (r runtimeState) problems(now time.Time) []string {
	if r.answered.IsZero() {
		return []string{runtimeNotAsked}
	}
	var problems []string
	if now.Sub(r.answered) > runtimeGrace {
		problems = append(problems, runtimeDown)
	}
	for _, need := range []struct{ kind, problem string }{
		{"RuntimeReady", "container runtime not ready"},
		{"NetworkReady", "container runtime network not ready"},
	} {
		i := slices.IndexFunc(r.conditions, func(c runtimeCondition) bool { return c.kind == need.kind })
		switch {
		case i < 0:
			problems = append(problems, need.problem+": <nil>")
		case !r.conditions[i].ok:
			problems = append(problems, need.problem+": "+r.conditions[i].String())
		}
	}
	return problems
}

// usage of the resources that a host can run out of.
type usage struct {
	memoryAvailable         uint64 // bytes
	diskAvailable, disk     uint64 // bytes
	inodesAvailable, inodes uint64
}

// idle is the usage of a host without pressure.
var idle = usage{memoryAvailable: 1 << 62}

// pressure says which pressures the usage shows. There is no threshold for process IDs, as upstream
// has none by default.
func pressure(u usage) map[v1.NodeConditionType]bool {
	return map[v1.NodeConditionType]bool{
		v1.NodeMemoryPressure: u.memoryAvailable < memoryReserved,
		v1.NodeDiskPressure: float64(u.diskAvailable) < diskReserved*float64(u.disk) ||
			float64(u.inodesAvailable) < inodesReserved*float64(u.inodes),
	}
}

func pressureCondition(kind v1.NodeConditionType, s state, now time.Time) v1.NodeCondition {
	status, text := v1.ConditionFalse, pressureTexts[kind][0]
	last, ever := s.pressureAt[kind]
	if pressure(s.usage)[kind] || (ever && now.Sub(last) < PressureTransitionPeriod) {
		status, text = v1.ConditionTrue, pressureTexts[kind][1]
	}
	return v1.NodeCondition{Type: kind, Status: status, Reason: text.reason, Message: text.message}
}
