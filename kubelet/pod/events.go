package pod

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"flyball.dev/kubelet/pod/plan"
)

// Reasons of Events, upstream's.
const (
	reasonCreated             = "Created"
	reasonStarted             = "Started"
	reasonKilling             = "Killing"
	reasonFailed              = "Failed"
	reasonBackOff             = "BackOff"
	reasonFailedMount         = "FailedMount"
	reasonFailedKillPod       = "FailedKillPod"
	reasonFailedCreateSandbox = "FailedCreatePodSandBox"
	reasonNetworkNotReady     = "NetworkNotReady"
	reasonSandboxChanged      = "SandboxChanged"
	reasonFailedPostStart     = "FailedPostStartHook"
	reasonFailedPreStop       = "FailedPreStopHook"
	reasonHTTPFallback        = "LifecycleHTTPFallback"
)

// reasonFailedStatus is the reason of Events about a status that the API server refuses; upstream
// has none.
const reasonFailedStatus = "FailedStatusUpdate"

// ContainerRef refers to a container of a Pod, as Events about containers do.
func ContainerRef(pod *v1.Pod, name string) *v1.ObjectReference {
	ref := &v1.ObjectReference{
		Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name,
		UID: pod.UID, ResourceVersion: pod.ResourceVersion,
	}
	fields := map[podutil.ContainerType]string{
		podutil.InitContainers: "initContainers", podutil.Containers: "containers", podutil.EphemeralContainers: "ephemeralContainers",
	}
	for c, kind := range podutil.ContainerIter(&pod.Spec, podutil.AllContainers) {
		if c.Name == name {
			ref.FieldPath = fmt.Sprintf("spec.%s{%s}", fields[kind], name)
		}
	}
	return ref
}

// recordTermination records the Event about the node's decision to end the Pod.
func (w *worker) recordTermination(t *plan.Termination) {
	kind := v1.EventTypeWarning
	if t.Reason == plan.ReasonDeadlineExceeded {
		kind = v1.EventTypeNormal // the user asked for it
	}
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
