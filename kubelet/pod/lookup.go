package pod

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"flyball.dev/kubelet/cri"
)

// Pods returns all Pods of this node, shared objects that must not be changed.
func (m *Manager) Pods() []*v1.Pod {
	objects := m.pods.GetStore().List()
	pods := make([]*v1.Pod, 0, len(objects))
	for _, o := range objects {
		pods = append(pods, o.(*v1.Pod)) //nolint:forcetypeassert // an informer of Pods
	}
	return pods
}

// Pod returns a Pod of this node, a shared object that must not be changed.
func (m *Manager) Pod(namespace, name string) (*v1.Pod, bool) {
	o, ok, err := m.pods.GetStore().GetByKey(namespace + "/" + name)
	if err != nil || !ok {
		return nil, false
	}
	return o.(*v1.Pod), true //nolint:forcetypeassert // an informer of Pods
}

// Runtime returns what the runtime was last seen to know about a Pod.
func (m *Manager) Runtime(pod *v1.Pod) (cri.Pod, bool) {
	if v := m.view(pod); v != nil {
		return v.runtime, true
	}
	return cri.Pod{}, false
}

// SandboxID returns the ID of the running sandbox of a Pod.
func (m *Manager) SandboxID(namespace, podName string) (string, error) {
	pod, ok := m.Pod(namespace, podName)
	if !ok {
		return "", fmt.Errorf("pod %q not found in namespace %q on this node", podName, namespace)
	}
	if v := m.view(pod); v != nil && len(v.runtime.Sandboxes) > 0 && v.runtime.Sandboxes[0].Ready {
		return v.runtime.Sandboxes[0].ID, nil
	}
	return "", fmt.Errorf("pod %q in namespace %q has no running sandbox", podName, namespace)
}

// ContainerID returns the ID of an instance of a container, as logs and exec
// want it: the one that runs or ended last, or the one before that.
func (m *Manager) ContainerID(namespace, podName, container string, previous bool) (string, error) {
	pod, ok := m.Pod(namespace, podName)
	if !ok {
		return "", fmt.Errorf("pod %q not found in namespace %q on this node", podName, namespace)
	}
	status := &pod.Status
	if v := m.view(pod); v != nil && v.status != nil {
		status = v.status
	}
	cs, ok := containerStatus(status, container)
	if !ok {
		return "", fmt.Errorf("container %q in pod %q is not available", container, podName)
	}
	last := cs.LastTerminationState.Terminated
	id := ""
	switch {
	case previous:
		if last == nil || last.ContainerID == "" {
			return "", fmt.Errorf("previous terminated container %q in pod %q not found", container, podName)
		}
		id = last.ContainerID
	case cs.State.Waiting == nil:
		id = cs.ContainerID
	case last != nil && last.ContainerID != "":
		id = last.ContainerID
	default:
		return "", waitingError(container, podName, cs.State.Waiting)
	}
	if _, bare, ok := strings.Cut(id, "://"); ok {
		id = bare
	}
	if id == "" {
		return "", fmt.Errorf("container %q in pod %q is terminated", container, podName)
	}
	return id, nil
}

func waitingError(container, podName string, w *v1.ContainerStateWaiting) error {
	switch w.Reason {
	case "ErrImagePull", "ErrImageNeverPull", "ImagePullBackOff":
		return fmt.Errorf("container %q in pod %q is waiting to start: image can't be pulled", container, podName)
	case "":
		return fmt.Errorf("container %q in pod %q is waiting to start", container, podName)
	default:
		return fmt.Errorf("container %q in pod %q is waiting to start: %s", container, podName, w.Reason)
	}
}

func containerStatus(status *v1.PodStatus, name string) (v1.ContainerStatus, bool) {
	for _, list := range [][]v1.ContainerStatus{
		status.ContainerStatuses, status.InitContainerStatuses, status.EphemeralContainerStatuses,
	} {
		if cs, ok := podutil.GetContainerStatus(list, name); ok {
			return cs, true
		}
	}
	return v1.ContainerStatus{}, false
}

func (m *Manager) view(pod *v1.Pod) *view {
	m.mu.Lock()
	w := m.workers[pod.UID]
	m.mu.Unlock()
	if w == nil {
		return nil
	}
	return w.view.Load()
}
