package containers

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"path/filepath"
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

	annotationDeletionGrace    = "io.kubernetes.pod.deletionGracePeriod"
	annotationTerminationGrace = "io.kubernetes.pod.terminationGracePeriod"
	annotationHash             = "io.kubernetes.container.hash"
	annotationRestartCount     = "io.kubernetes.container.restartCount"
	annotationMessagePath      = "io.kubernetes.container.terminationMessagePath"
	annotationMessagePolicy    = "io.kubernetes.container.terminationMessagePolicy"
	annotationPreStop          = "io.kubernetes.container.preStopHandler"
	annotationPorts            = "io.kubernetes.container.ports"

	// annotationResources is what the container was made with. The runtime reports
	// what it has now, but neither memory requests nor the values before rounding.
	annotationResources = "flyball.dev/resources"
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
	Created *Created
}

// Created are the resources that a container was made with: its own and those of its Pod.
type Created struct {
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
		Hash:                     annotations[annotationHash],
		TerminationMessagePath:   annotations[annotationMessagePath],
		TerminationMessagePolicy: v1.TerminationMessagePolicy(annotations[annotationMessagePolicy]),
		TerminationGracePeriod:   parseInt(annotations[annotationTerminationGrace]),
		DeletionGracePeriod:      parseInt(annotations[annotationDeletionGrace]),
	}
	if n := parseInt(annotations[annotationRestartCount]); n != nil {
		info.RestartCount = int(*n)
	}
	if raw := annotations[annotationPreStop]; raw != "" {
		handler := &v1.LifecycleHandler{}
		if json.Unmarshal([]byte(raw), handler) == nil {
			info.PreStop = handler
		}
	}
	if raw := annotations[annotationPorts]; raw != "" {
		var ports []v1.ContainerPort
		if json.Unmarshal([]byte(raw), &ports) == nil {
			info.Ports = ports
		}
	}
	if raw := annotations[annotationResources]; raw != "" {
		created := &Created{}
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

// Hash of the fields of a container that need a restart when they change: the
// name and the image. It is compared with Info.Hash. Resources are not in it:
// they change in place.
func Hash(c *v1.Container) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%q %q", c.Name, c.Image)
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}

// PodLogsDir is the directory of a Pod's logs: PodLogsDir/NAMESPACE_NAME_UID.
func PodLogsDir(base string, pod *v1.Pod) string {
	return filepath.Join(base, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// ContainerLogPath is the absolute path of one attempt's log: PodLogsDir/NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log.
func ContainerLogPath(base string, pod *v1.Pod, container string, attempt uint32) string {
	return filepath.Join(PodLogsDir(base, pod), relativeLogPath(container, attempt))
}

func relativeLogPath(container string, attempt uint32) string {
	return filepath.Join(container, strconv.FormatUint(uint64(attempt), 10)+".log")
}

// sandboxLabels are the Pod's own labels and, on top of them, who it is.
func sandboxLabels(pod *v1.Pod, owner string) map[string]string {
	labels := make(map[string]string, len(pod.Labels)+4)
	maps.Copy(labels, pod.Labels)
	maps.Copy(labels, podLabels(pod, owner))
	return labels
}

func containerLabels(pod *v1.Pod, c *v1.Container, owner string) map[string]string {
	labels := podLabels(pod, owner)
	labels[LabelContainerName] = c.Name
	return labels
}

// podLabels say which Pod it is, and whose.
func podLabels(pod *v1.Pod, owner string) map[string]string {
	labels := map[string]string{
		LabelPodName:      pod.Name,
		LabelPodNamespace: pod.Namespace,
		LabelPodUID:       string(pod.UID),
	}
	maps.Copy(labels, OwnedBy(owner))
	return labels
}

// OwnedBy are the labels by which an owner finds what is its own; none if owner is empty.
func OwnedBy(owner string) map[string]string {
	if owner == "" {
		return nil
	}
	return map[string]string{LabelOwner: owner}
}

func containerAnnotations(pod *v1.Pod, c *v1.Container, attempt uint32) (map[string]string, error) {
	a := map[string]string{
		annotationHash:          Hash(c),
		annotationRestartCount:  strconv.FormatUint(uint64(attempt), 10),
		annotationMessagePath:   c.TerminationMessagePath,
		annotationMessagePolicy: string(c.TerminationMessagePolicy),
	}
	created, err := json.Marshal(Created{Container: c.Resources, Pod: pod.Spec.Resources})
	if err != nil {
		return nil, fmt.Errorf("encoding resources of container %s: %w", c.Name, err)
	}
	a[annotationResources] = string(created)
	if s := pod.DeletionGracePeriodSeconds; s != nil {
		a[annotationDeletionGrace] = strconv.FormatInt(*s, 10)
	}
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		a[annotationTerminationGrace] = strconv.FormatInt(*s, 10)
	}
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		raw, err := json.Marshal(c.Lifecycle.PreStop)
		if err != nil {
			return nil, fmt.Errorf("encoding preStop handler of container %s: %w", c.Name, err)
		}
		a[annotationPreStop] = string(raw)
	}
	if len(c.Ports) > 0 {
		raw, err := json.Marshal(c.Ports)
		if err != nil {
			return nil, fmt.Errorf("encoding ports of container %s: %w", c.Name, err)
		}
		a[annotationPorts] = string(raw)
	}
	return a, nil
}

// podRef names a Pod as upstream's messages do: NAME_NAMESPACE(UID).
func podRef(pod *v1.Pod) string { return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID) }
