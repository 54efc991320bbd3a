//go:build linux

package cgroups

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
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
	// empty says whether no process is in or below the cgroup.
	empty(path string) (bool, error)
	// read returns one number of the cgroup: 0 if it is missing or has no such
	// controller, unlimited if a limit is not set.
	read(path string, n number) (int64, error)
	// dirs are the directories of the cgroup that measure it, see Group.
	dirs(path string) map[string]string
}

// number is what can be read of a cgroup, in the units of Limits.
type number int

const (
	sharesNumber number = iota
	quotaNumber
	memoryNumber
	memoryUsageNumber
)

// Manager makes and removes cgroups. Its methods may be called concurrently.
type Manager struct {
	root  string
	v2    bool
	hosts hierarchy

	seconds *prometheus.HistogramVec

	mu sync.Mutex
	// shares is what the class of Burstable Pods was last given.
	shares uint64
}

// New finds out which cgroups the host has.
func New(cfg Config) (*Manager, error) {
	if cfg.Root == "" {
		cfg.Root = "kubepods"
	}
	m := &Manager{root: cfg.Root, seconds: newSeconds()}
	var err error
	m.hosts, m.v2, err = detect(cfg.Root)
	return m, err
}

// V2 says whether the unified hierarchy is in use.
func (m *Manager) V2() bool { return m.v2 }

// EnsureNode makes the top and the class cgroups, with the memory and CPU of
// allocatable as the limits of all Pods together. It is idempotent.
func (m *Manager) EnsureNode(allocatable v1.ResourceList) error {
	top, limits := classPath(m.root, v1.PodQOSGuaranteed), nodeLimits(allocatable)
	if err := m.hosts.ensure(top, limits); err != nil {
		// The kernel refuses a memory limit below what running Pods use already.
		// They must not be lost for that: the limit comes with the next start.
		limits.Memory = 0
		if again := m.hosts.ensure(top, limits); again != nil {
			return fmt.Errorf("making the cgroup of all Pods: %w", err)
		}
	}
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
// idempotent, and is called again after a resize.
func (m *Manager) EnsurePod(pod *v1.Pod) (cgroupParent string, err error) {
	class := v1qos.GetPodQOS(pod)
	parent := podPath(m.root, class, pod.UID)
	defer m.measure(m.ensuring(parent))()
	if err := m.hosts.ensure(parent, podLimits(pod)); err != nil {
		return "", fmt.Errorf("making the cgroup of the Pod: %w", err)
	}
	if class != v1.PodQOSBurstable {
		return parent, nil
	}
	return parent, m.updateBurstable()
}

// GrowPod raises the limits of the Pod's cgroup to those of its spec, and lowers
// none: containers that are yet to shrink still fit. Once they have, EnsurePod sets
// the rest. It needs no memory of what the limits were.
func (m *Manager) GrowPod(pod *v1.Pod) error {
	at := podPath(m.root, v1qos.GetPodQOS(pod), pod.UID)
	defer m.measure("update")()
	limits := podLimits(pod)
	var has [3]int64
	for i, n := range []number{sharesNumber, quotaNumber, memoryNumber} {
		var err error
		if has[i], err = m.hosts.read(at, n); err != nil {
			return fmt.Errorf("reading the limits of the Pod: %w", err)
		}
	}
	if err := m.hosts.ensure(at, limits.above(has[0], has[1], has[2])); err != nil {
		return fmt.Errorf("raising the limits of the Pod: %w", err)
	}
	return nil
}

// PodMemory returns how much memory the Pod uses, and whether EnsurePod would lower
// its limit, to which, both in bytes.
func (m *Manager) PodMemory(pod *v1.Pod) (usage, limit int64, lower bool, err error) {
	at := podPath(m.root, v1qos.GetPodQOS(pod), pod.UID)
	limit = podLimits(pod).Memory
	has, err := m.hosts.read(at, memoryNumber)
	if err == nil {
		usage, err = m.hosts.read(at, memoryUsageNumber)
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("reading the memory of the Pod: %w", err)
	}
	return usage, limit, limit != 0 && (has == unlimited || limit < has), nil
}

// RemovePod kills what is left in the Pod's cgroup and removes it. It is idempotent.
func (m *Manager) RemovePod(uid types.UID) error {
	defer m.measure("destroy")()
	var errs []error
	for _, class := range classes {
		errs = append(errs, m.hosts.remove(podPath(m.root, class, uid)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing the cgroup of Pod %s: %w", uid, err)
	}
	return m.updateBurstable()
}

// updateBurstable lets the class weigh as much as its Pods. What they weigh is
// read from their cgroups, so that it is right after a restart as well.
func (m *Manager) updateBurstable() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	class := classPath(m.root, v1.PodQOSBurstable)
	names, err := m.hosts.children(class)
	if err != nil {
		return fmt.Errorf("listing cgroups of Burstable Pods: %w", err)
	}
	var pods []uint64
	for name := range names {
		if !strings.HasPrefix(name, podPrefix) {
			continue
		}
		s, err := m.hosts.read(path.Join(class, name), sharesNumber)
		if err != nil {
			return fmt.Errorf("reading the shares of Burstable Pods: %w", err)
		}
		pods = append(pods, uint64(s))
	}
	shares := sumShares(pods)
	if shares == m.shares {
		return nil
	}
	if err := m.hosts.ensure(class, Limits{Shares: shares}); err != nil {
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

// Empty says whether the Pod's cgroup holds no process, in itself or below.
func (m *Manager) Empty(uid types.UID) (bool, error) {
	for _, class := range classes {
		if empty, err := m.hosts.empty(podPath(m.root, class, uid)); err != nil || !empty {
			if err != nil {
				err = fmt.Errorf("looking for processes of Pod %s: %w", uid, err)
			}
			return false, err
		}
	}
	return true, nil
}

// Remove kills and removes everything below and including the top cgroup, for a
// cluster that goes down.
func (m *Manager) Remove() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shares = 0
	if err := m.hosts.remove(classPath(m.root, v1.PodQOSGuaranteed)); err != nil {
		return fmt.Errorf("removing the cgroup of all Pods: %w", err)
	}
	return nil
}
