package cgroups

import (
	"errors"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Config of a Manager.
type Config struct {
	// Root is the name of the top cgroup of all Pods; "kubepods" if empty.
	Root string
}

// Manager makes and removes cgroups.
type Manager struct{ cfg Config }

// New finds out which cgroups the host has.
func New(cfg Config) (*Manager, error) { return &Manager{cfg: cfg}, nil }

var errTODO = errors.New("being written")

// V2 says whether the unified hierarchy is in use.
func (m *Manager) V2() bool { return false }

// EnsureNode makes the top and the class cgroups, with the memory and CPU of
// allocatable as their limits. It is idempotent.
func (m *Manager) EnsureNode(allocatable v1.ResourceList) error { return errTODO }

// EnsurePod makes the cgroup of a Pod with the limits of its spec, corrects the
// shares of its class, and returns the cgroup_parent for its sandbox. It is
// idempotent and is called again after a resize.
func (m *Manager) EnsurePod(pod *v1.Pod) (cgroupParent string, err error) { return "", errTODO }

// RemovePod kills what is left in the Pod's cgroup and removes it. It is idempotent.
func (m *Manager) RemovePod(uid types.UID) error { return errTODO }

// ListPods returns the UIDs of all Pods that have a cgroup, for finding orphans.
func (m *Manager) ListPods() ([]types.UID, error) { return nil, errTODO }

// Remove removes everything, for `flyball down`; no Pod may be left.
func (m *Manager) Remove() error { return errTODO }
