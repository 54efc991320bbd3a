package node

import (
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	nodeutil "k8s.io/component-helpers/node/util"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/utils/ptr"
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

// Messages and reasons of conditions are upstream's: people and alerts search for them.
const (
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
	_, has := nodeutil.GetNodeCondition(status, c.Type)
	if has == nil {
		status.Conditions = append(status.Conditions, c)
		return
	}
	if has.Status == c.Status {
		c.LastTransitionTime = has.LastTransitionTime
	}
	*has = c
}

// condition returns the Node's condition of a type, without a status if there is none.
func condition(n *v1.Node, kind v1.NodeConditionType) v1.NodeCondition {
	_, c := nodeutil.GetNodeCondition(&n.Status, kind)
	return ptr.Deref(c, v1.NodeCondition{})
}

func readyCondition(r runtimeState, now time.Time) v1.NodeCondition {
	c := v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady", Message: messageReady}
	if err := utilerrors.NewAggregate(r.problems(now)); err != nil {
		c.Status, c.Reason, c.Message = v1.ConditionFalse, "KubeletNotReady", err.Error()
	}
	return c
}

// problems of the runtime that make the Node NotReady.
func (r runtimeState) problems(now time.Time) []error {
	if r.answered.IsZero() {
		return []error{errors.New(runtimeNotAsked)}
	}
	var problems []error
	if now.Sub(r.answered) > runtimeGrace {
		problems = append(problems, errors.New(runtimeDown))
	}
	if c := r.status.GetRuntimeCondition(kubecontainer.RuntimeReady); c == nil || !c.Status {
		problems = append(problems, fmt.Errorf("container runtime not ready: %v", c))
	}
	if c := r.status.GetRuntimeCondition(kubecontainer.NetworkReady); c == nil || !c.Status {
		problems = append(problems, fmt.Errorf("container runtime network not ready: %v", c))
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
