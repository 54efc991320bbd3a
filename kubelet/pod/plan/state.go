package plan

import (
	"slices"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

// State is one Pod at one moment, all that Plan and Status depend on.
type State struct {
	UID types.UID
	// Pod as the API server has it, with the resources that the node has allocated; nil if the API
	// server does not have the Pod (any more).
	Pod *v1.Pod
	// Mirror is the mirror Pod of a static Pod; nil if there is none. Pod has its status.
	Mirror *v1.Pod
	// Allocation has those resources; nil before the Pod is admitted. Pending is why they are not
	// those that the Pod asks for.
	Allocation *Allocation
	Pending    *Pending
	// Wanted are the resources of the containers of a resized Pod in the runtime's units, by name.
	Wanted map[string]cri.Resources
	// Last is the last known Pod, also when Pod is nil; nil for an orphan.
	Last    *v1.Pod
	Runtime cri.Pod
	// Hashes of the containers of the spec, by name, as new containers carry them.
	Hashes map[string]string
	Probes map[string]cri.Probed // by container
	Node   Node

	Memory
}

// Node is what enters the status of its Pods.
type Node struct {
	IPs         []string // of the node, the primary one first
	RuntimeName string   // the scheme of container IDs, for example containerd
	// RecursiveReadOnly are the runtime handlers that can make mounts recursively read-only.
	RecursiveReadOnly sets.Set[string]
}

// LastStatus returns the newest status that the API server has or will get.
func (s *State) LastStatus() v1.PodStatus {
	return ptr.Deref(s.Status, ptr.Deref(s.Pod, v1.Pod{}).Status)
}

// Sandbox returns the newest sandbox, and whether containers can run in it.
func (s *State) Sandbox() (cri.Sandbox, bool) {
	sb := s.Runtime.NewestSandbox()
	return sb, sb.Ready && (sb.HostNetwork || len(sb.IPs) > 0) && !s.Stopped[sb.ID]
}

// PodIPs are the addresses of the Pod, those of the node in the host's network; the primary one
// first.
func (s *State) PodIPs() []string {
	if s.Last != nil && s.Last.Spec.HostNetwork {
		return s.Node.IPs
	}
	sb, _ := s.Sandbox()
	return sb.IPs
}

func (s *State) newest(name string) (cri.Container, bool) {
	return s.Runtime.Find(func(c cri.Container) bool { return c.Name == name })
}

// newestIn returns the newest instance of a container in one sandbox, unless it is from before the
// restart of all containers.
func (s *State) newestIn(sandboxID, name string) (cri.Container, bool) {
	c, ok := s.Runtime.Find(func(c cri.Container) bool {
		return c.Name == name && c.SandboxID == sandboxID && sandboxID != ""
	})
	return c, ok && !s.superseded(c)
}

// initialized says whether a regular container was ever created in the sandbox, which happens only
// after all init containers are done.
func (s *State) initialized(sandboxID string) bool {
	return slices.ContainsFunc(s.Pod.Spec.Containers, func(c v1.Container) bool {
		_, ok := s.newestIn(sandboxID, c.Name)
		return ok
	})
}

func (s *State) result(c cri.Container) cri.Probed {
	r := s.Probes[c.Name]
	return lo.Ternary(r.ContainerID == c.ID, r, cri.Probed{})
}

// started says whether an instance runs and its startup probe, if any, has succeeded.
func (s *State) started(spec *v1.Container, c cri.Container) bool {
	return c.State == cri.Running && !s.hooking(c) && (spec.StartupProbe == nil || s.result(c).Started)
}

// hooking says whether the postStart hook of the instance still runs.
func (s *State) hooking(c cri.Container) bool {
	a, ok := s.InFlight[slotStart(c.Name)].(StartContainer)
	return ok && a.Attempt == c.Attempt
}

func isSidecar(c *v1.Container) bool { return podutil.IsRestartableInitContainer(c) }

// HasPostStart says whether a container has a postStart hook.
func HasPostStart(c *v1.Container) bool { return c.Lifecycle != nil && c.Lifecycle.PostStart != nil }

// lasting are the kinds of containers whose end concerns the Pod, which the end of an ephemeral
// container does not.
const lasting = podutil.InitContainers | podutil.Containers
