package cri

import (
	"encoding/json"
	"strings"

	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// Keys of labels and annotations that upstream's kubelet writes and the tools of the field read.
const (
	LabelPodName       = "io.kubernetes.pod.name"
	LabelPodNamespace  = "io.kubernetes.pod.namespace"
	LabelPodUID        = "io.kubernetes.pod.uid"
	LabelContainerName = "io.kubernetes.container.name"

	// LabelOwner is on every sandbox and container that a node agent of ours made. Its value is the
	// agent's Owner, since other users of CRI may share the runtime.
	LabelOwner = "flyball.dev/owner"

	AnnotationDeletionGrace    = "io.kubernetes.pod.deletionGracePeriod"
	AnnotationTerminationGrace = "io.kubernetes.pod.terminationGracePeriod"
	AnnotationHash             = "io.kubernetes.container.hash"
	AnnotationRestartCount     = "io.kubernetes.container.restartCount"
	AnnotationMessagePath      = "io.kubernetes.container.terminationMessagePath"
	AnnotationMessagePolicy    = "io.kubernetes.container.terminationMessagePolicy"
	AnnotationPreStop          = "io.kubernetes.container.preStopHandler"
	AnnotationPorts            = "io.kubernetes.container.ports"

	// AnnotationResources are the resources that the container was created with. The runtime
	// reports the present ones, but neither memory requests nor the values before rounding.
	AnnotationResources = "flyball.dev/resources"

	// AnnotationImageVolumes are the IDs of the images that a container has as volumes, with commas
	// between them.
	AnnotationImageVolumes = "flyball.dev/image-volumes"
)

// Info are facts in the annotations of a container: enough to end it gracefully when its Pod is no
// longer known.
type Info struct {
	TerminationGracePeriod, DeletionGracePeriod *int64 // in seconds
	PreStop                                     *v1.LifecycleHandler
	Ports                                       []v1.ContainerPort
	// Created are the resources that the container was created with; nil if unknown.
	Created *CreatedResources
}

// CreatedResources are resources at the creation of a container: its own and those of its Pod.
type CreatedResources struct {
	Container v1.ResourceRequirements  `json:"container"`
	Pod       *v1.ResourceRequirements `json:"pod,omitempty"`
}

// ParseInfo reads the annotations of a container. Fields that are missing or unreadable stay zero.
func ParseInfo(annotations map[string]string) Info {
	return Info{
		TerminationGracePeriod: decode[*int64](annotations[AnnotationTerminationGrace]),
		DeletionGracePeriod:    decode[*int64](annotations[AnnotationDeletionGrace]),
		PreStop:                decode[*v1.LifecycleHandler](annotations[AnnotationPreStop]),
		Ports:                  decode[[]v1.ContainerPort](annotations[AnnotationPorts]),
		Created:                decode[*CreatedResources](annotations[AnnotationResources]),
	}
}

// decode returns the zero value if raw is empty or no JSON of the type.
func decode[T any](raw string) T {
	var value, zero T
	if raw == "" || json.Unmarshal([]byte(raw), &value) != nil {
		return zero
	}
	return value
}

// OwnedBy are the labels of an owner's sandboxes and containers; none if owner is empty.
func OwnedBy(owner string) map[string]string {
	if owner == "" {
		return nil
	}
	return map[string]string{LabelOwner: owner}
}

// FindContainer returns a container of any kind in the Pod's spec, and its kind; nil and 0 if the
// Pod is nil or has none of the name.
func FindContainer(pod *v1.Pod, name string) (*v1.Container, podutil.ContainerType) {
	if pod == nil {
		return nil, 0
	}
	for c, kind := range podutil.ContainerIter(&pod.Spec, podutil.AllContainers) {
		if c.Name == name {
			return c, kind
		}
	}
	return nil, 0
}

// FindStatus returns the status of a container of any kind in the Pod's status; nil if there is
// none.
func FindStatus(pod *v1.Pod, name string) *v1.ContainerStatus {
	s := &pod.Status
	for _, list := range [][]v1.ContainerStatus{
		s.ContainerStatuses, s.InitContainerStatuses, s.EphemeralContainerStatuses,
	} {
		if i, ok := podutil.GetIndexOfContainerStatus(list, name); ok {
			return &list[i]
		}
	}
	return nil
}

// BareID is a container ID without the runtime's name: a Pod's status has containerd://ID, CRI has
// ID.
func BareID(id string) string {
	if _, bare, ok := strings.Cut(id, "://"); ok {
		return bare
	}
	return id
}
