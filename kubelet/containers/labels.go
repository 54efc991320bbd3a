package containers

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"path/filepath"
	"strconv"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"

	"flyball.dev/kubelet/cri"
)

// Hash of the fields of a container whose change needs a restart: the name and the image. It is
// compared with cri.Info.Hash. Resources change in place.
func Hash(c *v1.Container) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%q %q", c.Name, c.Image)
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}

// PodLogsDir is the directory of a Pod's logs: PodLogsDir/NAMESPACE_NAME_UID.
func PodLogsDir(base string, pod *v1.Pod) string {
	return filepath.Join(base, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// relativeLogPath is the path of one attempt's log below PodLogsDir.
func relativeLogPath(container string, attempt uint32) string {
	return filepath.Join(container, strconv.FormatUint(uint64(attempt), 10)+".log")
}

// podLabels identify the Pod and its owner.
func podLabels(pod *v1.Pod, owner string) map[string]string {
	return lo.Assign(cri.OwnedBy(owner), map[string]string{
		cri.LabelPodName: pod.Name, cri.LabelPodNamespace: pod.Namespace, cri.LabelPodUID: string(pod.UID),
	})
}

func containerAnnotations(pod *v1.Pod, c *v1.Container, attempt uint32) (map[string]string, error) {
	a := map[string]string{
		cri.AnnotationHash:          Hash(c),
		cri.AnnotationRestartCount:  strconv.FormatUint(uint64(attempt), 10),
		cri.AnnotationMessagePath:   c.TerminationMessagePath,
		cri.AnnotationMessagePolicy: string(c.TerminationMessagePolicy),
	}
	if s := pod.DeletionGracePeriodSeconds; s != nil {
		a[cri.AnnotationDeletionGrace] = strconv.FormatInt(*s, 10)
	}
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		a[cri.AnnotationTerminationGrace] = strconv.FormatInt(*s, 10)
	}
	created := cri.CreatedResources{Container: c.Resources, Pod: pod.Spec.Resources}
	encoded := map[string]any{cri.AnnotationResources: created}
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		encoded[cri.AnnotationPreStop] = c.Lifecycle.PreStop
	}
	if len(c.Ports) > 0 {
		encoded[cri.AnnotationPorts] = c.Ports
	}
	for key, value := range encoded {
		raw, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("encoding annotation %s of container %s: %w", key, c.Name, err)
		}
		a[key] = string(raw)
	}
	return a, nil
}
