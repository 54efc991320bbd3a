package cgroups

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	resourcehelper "k8s.io/component-helpers/resource"
	v1qos "k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
)

// Config of a Manager.
type Config struct {
	// Root is the name of the top cgroup of all Pods; "kubepods" if empty.
	Root string
}

// hierarchy is one version of cgroups. Paths begin at the root of the hierarchy.
type hierarchy interface {
	// ensure makes the cgroup if it is missing, and sets its limits.
	ensure(path string, limits Limits) error
	// remove kills the processes in and below the cgroup and removes it. A missing one is no error.
	remove(path string) error
	// children are the names of the cgroups directly below.
	children(path string) (sets.Set[string], error)
}

// Manager makes and removes cgroups. Its methods may be called concurrently.
type Manager struct {
	root  string
	v2    bool
	hosts hierarchy

	mu sync.Mutex
	// burstable has the CPU requests of the Pods of that class, in thousandths.
	burstable map[types.UID]int64
	// shares is what the class was last given.
	shares uint64
}

// New finds out which cgroups the host has.
func New(cfg Config) (*Manager, error) {
	if cfg.Root == "" {
		cfg.Root = "kubepods"
	}
	m := &Manager{root: cfg.Root, burstable: map[types.UID]int64{}}
	var err error
	m.hosts, m.v2, err = detect(cfg.Root)
	return m, err
}

// V2 says whether the unified hierarchy is in use.
func (m *Manager) V2() bool { return m.v2 }

// EnsureNode makes the top and the class cgroups, with the memory and CPU of
// allocatable as the limits of all Pods together. It is idempotent.
func (m *Manager) EnsureNode(allocatable v1.ResourceList) error {
	if err := m.hosts.ensure(classPath(m.root, v1.PodQOSGuaranteed), nodeLimits(allocatable)); err != nil {
		return fmt.Errorf("making the cgroup of all Pods: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.updateBurstable(); err != nil {
		return err
	}
	if err := m.hosts.ensure(classPath(m.root, v1.PodQOSBestEffort), Limits{Shares: minShares}); err != nil {
		return fmt.Errorf("making the cgroup of BestEffort Pods: %w", err)
	}
	return nil
}

// EnsurePod makes the cgroup of a Pod with the limits of its spec, corrects the
// shares of its class, and returns the cgroup_parent for its sandbox. It is
// idempotent; call it for every Pod after a start, and again after a resize.
func (m *Manager) EnsurePod(pod *v1.Pod) (cgroupParent string, err error) {
	class := v1qos.GetPodQOS(pod)
	parent := podPath(m.root, class, pod.UID)
	if err := m.hosts.ensure(parent, podLimits(pod)); err != nil {
		return "", fmt.Errorf("making the cgroup of the Pod: %w", err)
	}
	if class != v1.PodQOSBurstable {
		return parent, nil
	}
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.burstable[pod.UID] = requests.Cpu().MilliValue()
	return parent, m.updateBurstable()
}

// RemovePod kills what is left in the Pod's cgroup and removes it. It is idempotent.
func (m *Manager) RemovePod(uid types.UID) error {
	var errs []error
	for _, class := range classes {
		errs = append(errs, m.hosts.remove(podPath(m.root, class, uid)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing the cgroup of Pod %s: %w", uid, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.burstable[uid]; !ok {
		return nil
	}
	delete(m.burstable, uid)
	return m.updateBurstable()
}

// updateBurstable is called with mu held.
func (m *Manager) updateBurstable() error {
	shares := burstableShares(m.burstable)
	if shares == m.shares {
		return nil
	}
	if err := m.hosts.ensure(classPath(m.root, v1.PodQOSBurstable), Limits{Shares: shares}); err != nil {
		return fmt.Errorf("setting the shares of Burstable Pods: %w", err)
	}
	m.shares = shares
	return nil
}

// ListPods returns the UIDs of all Pods that have a cgroup, for finding orphans.
func (m *Manager) ListPods() ([]types.UID, error) {
	var uids []types.UID
	for _, class := range classes {
		names, err := m.hosts.children(classPath(m.root, class))
		if err != nil {
			return nil, fmt.Errorf("listing cgroups of Pods: %w", err)
		}
		for _, name := range sets.List(names) {
			if uid, ok := strings.CutPrefix(name, podPrefix); ok {
				uids = append(uids, types.UID(uid))
			}
		}
	}
	return uids, nil
}

// Remove kills and removes everything below and including the top cgroup, for a
// cluster that goes down.
func (m *Manager) Remove() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shares = 0
	clear(m.burstable)
	if err := m.hosts.remove(classPath(m.root, v1.PodQOSGuaranteed)); err != nil {
		return fmt.Errorf("removing the cgroup of all Pods: %w", err)
	}
	return nil
}
