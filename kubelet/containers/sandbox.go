package containers

import (
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// SandboxOptions is what, besides the Pod, a sandbox depends on.
type SandboxOptions struct {
	Node         Node
	Attempt      uint32
	CgroupParent string
}

// Sandbox renders the sandbox of the Pod.
func Sandbox(pod *v1.Pod, opts SandboxOptions) (*runtimeapi.PodSandboxConfig, error) {
	return nil, nil
}
