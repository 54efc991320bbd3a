package pod

import (
	"fmt"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/kubelet/events"

	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/pod/plan"
)

// reasonFailedStatus is the reason of an Event: the API server refuses a status.
const reasonFailedStatus = "FailedStatusUpdate"

// ContainerRef refers to a container of a Pod, as Events about containers do.
func ContainerRef(pod *v1.Pod, name string) *v1.ObjectReference {
	ref := &v1.ObjectReference{
		Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name,
		UID: pod.UID, ResourceVersion: pod.ResourceVersion,
	}
	if c, kind := cri.FindContainer(pod, name); c != nil {
		ref.FieldPath = fmt.Sprintf("spec.%s{%s}", fieldOf[kind], name)
	}
	return ref
}

var fieldOf = map[podutil.ContainerType]string{
	podutil.InitContainers: "initContainers", podutil.Containers: "containers", podutil.EphemeralContainers: "ephemeralContainers",
}

func (w *worker) recordTermination(t *plan.Termination) {
	// The user asked for a deadline.
	kind := lo.Ternary(t.Reason == plan.ReasonDeadlineExceeded, v1.EventTypeNormal, v1.EventTypeWarning)
	if w.state.Last != nil {
		w.m.cfg.Recorder.AnnotatedEventf(ContainerRef(w.state.Last, ""), t.Annotations, kind, t.Reason, "%s", t.Message)
	}
}

// event records an Event about a container of the Pod, or about the Pod itself if name is empty.
func (w *worker) event(name, kind, reason, message string) {
	w.m.event(w.state.Last, name, kind, reason, message)
}

func (m *Manager) event(pod *v1.Pod, name, kind, reason, message string) {
	if pod != nil { // an orphan has no object to record at
		m.cfg.Recorder.Event(ContainerRef(pod, name), kind, reason, message)
	}
}

type resizeEvent struct{ kind, reason, message string }

// resizeEvents returns the Events for the step from one status to another. They follow from the
// conditions, which the API server keeps, so an agent that restarts in between records each once.
func resizeEvents(allocated, desired *v1.Pod, pending *plan.Pending, before, after *v1.PodStatus) []resizeEvent {
	var list []resizeEvent
	add := func(kind, reason, message string) { list = append(list, resizeEvent{kind, reason, message}) }
	log := klog.Background()
	_, was := podutil.GetPodCondition(before, v1.PodResizePending)
	_, is := podutil.GetPodCondition(after, v1.PodResizePending)
	if is != nil && pending != nil && (was == nil || was.Reason != is.Reason || was.ObservedGeneration != is.ObservedGeneration) {
		reason := lo.Ternary(is.Reason == v1.PodReasonInfeasible, events.ResizeInfeasible, events.ResizeDeferred)
		add(v1.EventTypeWarning, reason, events.PodResizePendingMsg(log, desired, pending.Reason, pending.Message, pending.Generation))
	}

	_, was = podutil.GetPodCondition(before, v1.PodResizeInProgress)
	_, is = podutil.GetPodCondition(after, v1.PodResizeInProgress)
	if is != nil && (was == nil || was.ObservedGeneration != is.ObservedGeneration) {
		add(v1.EventTypeNormal, events.ResizeStarted, events.PodResizeStartedMsg(log, allocated, is.ObservedGeneration))
	}
	if is != nil && is.Reason != "" && (was == nil || was.Reason != is.Reason || was.Message != is.Message) {
		add(v1.EventTypeWarning, events.ResizeError, events.PodResizeErrorMsg(log, allocated, is.ObservedGeneration, is.Message))
	}
	if is == nil && was != nil && !podutil.IsPodPhaseTerminal(after.Phase) {
		add(v1.EventTypeNormal, events.ResizeCompleted, events.PodResizeCompletedMsg(log, allocated, was.ObservedGeneration))
	}
	return list
}

func (w *worker) recordResize(before, after *v1.PodStatus) {
	if w.state.Pending == nil && !w.state.Allocation.Resized() {
		return
	}
	for _, e := range resizeEvents(w.state.Pod, w.desired, w.state.Pending, before, after) {
		w.event("", e.kind, e.reason, e.message)
	}
}
