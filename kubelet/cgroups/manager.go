//go:build linux

package cgroups

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	v1qos "k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
)

// Root is upstream's name of the top cgroup of all Pods.
const Root = "kubepods"

// Manager makes and removes cgroups. Its methods may be called concurrently.
type Manager struct {
	root      string
	hierarchy hierarchy
	seconds   *prometheus.HistogramVec

	mu sync.Mutex
	// shares are those that the class of Burstable Pods has.
	shares uint64
}

// New finds out which version of cgroups the host has. Below root, commonly Root, it keeps all
// Pods.
func New(root string) (*Manager, error) {
	h, err := detect(root)
	if err != nil {
		return nil, err
	}
	return &Manager{root: root, hierarchy: h, seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "kubelet_cgroup_manager_duration_seconds",
		Help: "How long it took to create, update or destroy a cgroup of a Pod.",
	}, []string{"operation_type"})}, nil
}

// EnsureNode makes the top and the class cgroups, with the memory and CPU of allocatable as the
// limits of all Pods together. It is idempotent.
func (m *Manager) EnsureNode(allocatable v1.ResourceList) error {
	top, limits := classPath(m.root, v1.PodQOSGuaranteed), nodeLimits(allocatable)
	if err := m.hierarchy.ensure(top, limits); err != nil {
		// The kernel refuses a memory limit below what running Pods use. They must not be lost for
		// that: the next start sets the limit.
		limits.Memory = 0
		if again := m.hierarchy.ensure(top, limits); again != nil {
			return fmt.Errorf("making the cgroup of all Pods: %w", err)
		}
	}
	if err := m.updateBurstable(); err != nil {
		return err
	}
	if err := m.hierarchy.ensure(classPath(m.root, v1.PodQOSBestEffort), Limits{Shares: minShares}); err != nil {
		return fmt.Errorf("making the cgroup of BestEffort Pods: %w", err)
	}
	return nil
}

// EnsurePod makes the cgroup of a Pod with the limits of its spec, corrects the shares of its
// class, and returns the cgroup_parent for its sandbox. It is idempotent, and runs again after a
// resize.
func (m *Manager) EnsurePod(pod *v1.Pod) (cgroupParent string, err error) {
	class := v1qos.GetPodQOS(pod)
	parent := podPath(m.root, class, pod.UID)
	defer m.measure(m.ensuring(parent))()
	if err := m.hierarchy.ensure(parent, podLimits(pod)); err != nil {
		return "", fmt.Errorf("making the cgroup of the Pod: %w", err)
	}
	if class != v1.PodQOSBurstable {
		return parent, nil
	}
	return parent, m.updateBurstable()
}

// GrowPod raises the limits of the Pod's cgroup to those of its spec, and lowers none: containers
// that are yet to shrink still fit. Once they have, EnsurePod sets the rest.
func (m *Manager) GrowPod(pod *v1.Pod) error {
	at := podPath(m.root, v1qos.GetPodQOS(pod), pod.UID)
	defer m.measure("update")()
	limits := podLimits(pod)
	var has [3]int64
	for i, n := range []number{sharesNumber, quotaNumber, memoryNumber} {
		var err error
		if has[i], err = m.hierarchy.read(at, n); err != nil {
			return fmt.Errorf("reading the limits of the Pod: %w", err)
		}
	}
	if err := m.hierarchy.ensure(at, limits.above(has[0], has[1], has[2])); err != nil {
		return fmt.Errorf("raising the limits of the Pod: %w", err)
	}
	return nil
}

// PodMemory returns how much memory the Pod uses and the limit that EnsurePod would set, both in
// bytes, and whether that is lower than the present one.
func (m *Manager) PodMemory(pod *v1.Pod) (usage, limit int64, lower bool, err error) {
	at := podPath(m.root, v1qos.GetPodQOS(pod), pod.UID)
	limit = podLimits(pod).Memory
	has, err := m.hierarchy.read(at, memoryNumber)
	if err == nil {
		usage, err = m.hierarchy.read(at, memoryUsageNumber)
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("reading the memory of the Pod: %w", err)
	}
	return usage, limit, limit != 0 && (has == unlimited || limit < has), nil
}

// RemovePod kills the processes in the Pod's cgroup and removes it. It is idempotent.
func (m *Manager) RemovePod(uid types.UID) error {
	defer m.measure("destroy")()
	var errs []error
	for _, class := range classes {
		errs = append(errs, m.hierarchy.remove(podPath(m.root, class, uid)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing the cgroup of Pod %s: %w", uid, err)
	}
	return m.updateBurstable()
}

// updateBurstable gives the class as many shares as its Pods have together. It reads them from the
// Pods' cgroups, so that the sum is right after a restart as well.
func (m *Manager) updateBurstable() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	uids, err := m.pods(v1.PodQOSBurstable)
	if err != nil {
		return err
	}
	pods := make([]uint64, len(uids))
	for i, uid := range uids {
		s, err := m.hierarchy.read(podPath(m.root, v1.PodQOSBurstable, uid), sharesNumber)
		if err != nil {
			return fmt.Errorf("reading the shares of Burstable Pods: %w", err)
		}
		pods[i] = uint64(s)
	}
	shares := sumShares(pods)
	if shares == m.shares {
		return nil
	}
	if err := m.hierarchy.ensure(classPath(m.root, v1.PodQOSBurstable), Limits{Shares: shares}); err != nil {
		return fmt.Errorf("setting the shares of Burstable Pods: %w", err)
	}
	m.shares = shares
	return nil
}

// ListPods returns the UIDs of all Pods that have a cgroup, for finding orphans.
func (m *Manager) ListPods() ([]types.UID, error) {
	return lo.FlatMapErr(classes, func(class v1.PodQOSClass, _ int) ([]types.UID, error) { return m.pods(class) })
}

// pods returns the UIDs of the Pods that have a cgroup in the class.
func (m *Manager) pods(class v1.PodQOSClass) ([]types.UID, error) {
	names, err := m.hierarchy.children(classPath(m.root, class))
	if err != nil {
		return nil, fmt.Errorf("listing cgroups of %s Pods: %w", class, err)
	}
	var uids []types.UID
	for _, name := range sets.List(names) {
		if uid, ok := strings.CutPrefix(name, podPrefix); ok {
			uids = append(uids, types.UID(uid))
		}
	}
	return uids, nil
}

// Empty reports whether no process is in the Pod's cgroup or below.
func (m *Manager) Empty(uid types.UID) (bool, error) {
	for _, class := range classes {
		if empty, err := m.hierarchy.empty(podPath(m.root, class, uid)); err != nil {
			return false, fmt.Errorf("listing processes of Pod %s: %w", uid, err)
		} else if !empty {
			return false, nil
		}
	}
	return true, nil
}

// Remove removes the top cgroup with all below, and kills the processes in them, for a cluster that
// goes down.
func (m *Manager) Remove() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shares = 0
	if err := m.hierarchy.remove(classPath(m.root, v1.PodQOSGuaranteed)); err != nil {
		return fmt.Errorf("removing the cgroup of all Pods: %w", err)
	}
	return nil
}

// Collectors returns the metrics of the Manager, for a registry.
func (m *Manager) Collectors() []prometheus.Collector { return []prometheus.Collector{m.seconds} }

// measure begins to measure an operation. The function that it returns ends it.
func (m *Manager) measure(operation string) func() {
	begun := time.Now()
	return func() { m.seconds.WithLabelValues(operation).Observe(time.Since(begun).Seconds()) }
}

// ensuring is the kind of operation that ensuring a cgroup is.
func (m *Manager) ensuring(at string) string {
	for _, dir := range m.hierarchy.dirs(at) {
		if _, err := os.Stat(dir); err != nil {
			return "create"
		}
	}
	return "update"
}
