package cri

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
)

// RecursiveReadOnly says whether a mount is recursively read-only by a runtime that supports it or
// not. It returns an error if the mount asks for that and cannot have it.
func RecursiveReadOnly(m v1.VolumeMount, supported bool) (bool, error) {
	if m.RecursiveReadOnly == nil || *m.RecursiveReadOnly == v1.RecursiveReadOnlyDisabled {
		return false, nil
	}
	if !m.ReadOnly {
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not read-only", m.Name)
	}
	if p := m.MountPropagation; p != nil && *p != v1.MountPropagationNone {
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not compatible with propagation %q", m.Name, *p)
	}
	switch mode := *m.RecursiveReadOnly; {
	case mode == v1.RecursiveReadOnlyIfPossible:
		return supported, nil
	case mode == v1.RecursiveReadOnlyEnabled && supported:
		return true, nil
	case mode == v1.RecursiveReadOnlyEnabled:
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not supported by the runtime", m.Name)
	default:
		return false, fmt.Errorf("unknown recursive read-only mode %q", mode)
	}
}
