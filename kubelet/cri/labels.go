package cri

import (
	"encoding/json"
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Keys of labels and annotations that upstream's kubelet writes and the tools of the field read.
const (
	LabelPodName       = "io.kubernetes.pod.name"
	LabelPodNamespace  = "io.kubernetes.pod.namespace"
	LabelPodUID        = "io.kubernetes.pod.uid"
	LabelContainerName = "io.kubernetes.container.name"

	// LabelOwner is on every sandbox and container that a node agent of ours made. Its value is the agent's
	// RootDir: a runtime, and even a machine, may be shared with other users of CRI.
	LabelOwner = "flyball.dev/owner"

	AnnotationDeletionGrace    = "io.kubernetes.pod.deletionGracePeriod"
	AnnotationTerminationGrace = "io.kubernetes.pod.terminationGracePeriod"
	AnnotationHash             = "io.kubernetes.container.hash"
	AnnotationRestartCount     = "io.kubernetes.container.restartCount"
	AnnotationMessagePath      = "io.kubernetes.container.terminationMessagePath"
	AnnotationMessagePolicy    = "io.kubernetes.container.terminationMessagePolicy"
	AnnotationPreStop          = "io.kubernetes.container.preStopHandler"
	AnnotationPorts            = "io.kubernetes.container.ports"

	// annotationResources is what the container was made with. The runtime reports
	// what it has now, but neither memory requests nor the values before rounding.
	AnnotationResources = "flyball.dev/resources"
)

// Info is what the annotations and labels of a container tell, enough to end it
// decently when its Pod is no longer known.
type Info struct {
	PodName, PodNamespace    string
	PodUID                   types.UID
	Container                string
	Hash                     string
	RestartCount             int
	TerminationMessagePath   string
	TerminationMessagePolicy v1.TerminationMessagePolicy
	TerminationGracePeriod   *int64
	DeletionGracePeriod      *int64
	PreStop                  *v1.LifecycleHandler
	Ports                    []v1.ContainerPort
	// Created is what the container was made with; nil if that is not known.
	Created *CreatedResources
}

// CreatedResources are the resources that a container was made with: its own and those of its Pod.
type CreatedResources struct {
	Container v1.ResourceRequirements  `json:"container"`
	Pod       *v1.ResourceRequirements `json:"pod,omitempty"`
}

// ParseInfo reads the labels and annotations of a container. What is missing or unreadable stays zero.
func ParseInfo(labels, annotations map[string]string) Info {
	info := Info{
		PodName:                  labels[LabelPodName],
		PodNamespace:             labels[LabelPodNamespace],
		PodUID:                   types.UID(labels[LabelPodUID]),
		Container:                labels[LabelContainerName],
		Hash:                     annotations[AnnotationHash],
		TerminationMessagePath:   annotations[AnnotationMessagePath],
		TerminationMessagePolicy: v1.TerminationMessagePolicy(annotations[AnnotationMessagePolicy]),
		TerminationGracePeriod:   parseInt(annotations[AnnotationTerminationGrace]),
		DeletionGracePeriod:      parseInt(annotations[AnnotationDeletionGrace]),
	}
	if n := parseInt(annotations[AnnotationRestartCount]); n != nil {
		info.RestartCount = int(*n)
	}
	if raw := annotations[AnnotationPreStop]; raw != "" {
		handler := &v1.LifecycleHandler{}
		if json.Unmarshal([]byte(raw), handler) == nil {
			info.PreStop = handler
		}
	}
	if raw := annotations[AnnotationPorts]; raw != "" {
		var ports []v1.ContainerPort
		if json.Unmarshal([]byte(raw), &ports) == nil {
			info.Ports = ports
		}
	}
	if raw := annotations[AnnotationResources]; raw != "" {
		created := &CreatedResources{}
		if json.Unmarshal([]byte(raw), created) == nil {
			info.Created = created
		}
	}
	return info
}

func parseInt(s string) *int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

// OwnedBy are the labels by which an owner finds what is its own; none if owner is empty.
func OwnedBy(owner string) map[string]string {
	if owner == "" {
		return nil
	}
	return map[string]string{LabelOwner: owner}
}
