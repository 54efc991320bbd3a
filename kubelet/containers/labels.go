package containers

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Keys of labels and annotations that upstream's kubelet writes and the tools of the field read.
const (
	LabelPodName       = "io.kubernetes.pod.name"
	LabelPodNamespace  = "io.kubernetes.pod.namespace"
	LabelPodUID        = "io.kubernetes.pod.uid"
	LabelContainerName = "io.kubernetes.container.name"

	annotationDeletionGrace    = "io.kubernetes.pod.deletionGracePeriod"
	annotationTerminationGrace = "io.kubernetes.pod.terminationGracePeriod"
	annotationHash             = "io.kubernetes.container.hash"
	annotationRestartCount     = "io.kubernetes.container.restartCount"
	annotationMessagePath      = "io.kubernetes.container.terminationMessagePath"
	annotationMessagePolicy    = "io.kubernetes.container.terminationMessagePolicy"
	annotationPreStop          = "io.kubernetes.container.preStopHandler"
	annotationPorts            = "io.kubernetes.container.ports"
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
}

// ParseInfo reads the labels and annotations of a container. What is missing or unreadable stays zero.
func ParseInfo(labels, annotations map[string]string) Info { return Info{} }

// Hash of the fields of a container that need a restart when they change: the
// name and the image. It is compared with Info.Hash.
func Hash(c *v1.Container) string { return "" }

// PodLogsDir is the directory of a Pod's logs: PodLogsDir/NAMESPACE_NAME_UID.
func PodLogsDir(base string, pod *v1.Pod) string { return "" }

// ContainerLogPath is the absolute path of one attempt's log: PodLogsDir/NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log.
func ContainerLogPath(base string, pod *v1.Pod, container string, attempt uint32) string { return "" }
