package node

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/nodedeclaredfeatures/features/extendwebsocketstokubelet"
	"k8s.io/component-helpers/nodedeclaredfeatures/features/inplacepodresize"
	"k8s.io/component-helpers/nodedeclaredfeatures/features/restartallcontainers"
)

const (
	// StatusReportFrequency is how often an unchanged status is written; the Lease is the
	// sign of life in between.
	StatusReportFrequency = 5 * time.Minute
	// StatusUpdateFrequency is how often pressure is measured, which nothing announces.
	StatusUpdateFrequency = 10 * time.Second
	// While the runtime is not ready it is asked again soon: CRI has no event for
	// its conditions, and the first Ready of a node waits for nothing else.
	lookSoonest, lookLatest = 20 * time.Millisecond, time.Second
	// runtimeGrace is how long a runtime that answered before may be silent until
	// the Node is reported NotReady: a restart of containerd takes a second or
	// two, disturbs no container, and must not take the Pods out of their Services.
	runtimeGrace = 30 * time.Second
	// PressureTransitionPeriod is how long a pressure condition outlives its cause, so that a
	// node at the threshold does not flap.
	PressureTransitionPeriod = 5 * time.Minute
	// MaxImages is how many images the status names.
	MaxImages        = 50
	maxNamesPerImage = 5

	// Memory and disk are reserved for the machine: Pods may not request them, and a pressure
	// condition says when less is free. The amounts are upstream's default eviction thresholds,
	// but no Pod is evicted: the cgroup of all Pods keeps them from the memory, and the
	// scheduler and admission from the disk.
	memoryReserved = 100 << 20 // bytes
	diskReserved   = 0.10      // of the file system
	// inodesKeptFree has a condition only: nobody can request inodes.
	inodesKeptFree = 0.05
)

// Reasons and messages of the Node's conditions are upstream's: people and alerts
// look for them.
const (
	reasonReady     = "KubeletReady"
	reasonNotReady  = "KubeletNotReady"
	messageReady    = "kubelet is posting ready status"
	reasonRebooted  = "NodeRebooted"
	runtimeNotAsked = "container runtime status check may not have completed yet"
	runtimeDown     = "container runtime is down"
)

// pressureTexts are what a pressure condition says when it is False and True.
var pressureTexts = map[v1.NodeConditionType][2]struct{ reason, message string }{
	v1.NodeMemoryPressure: {
		{"KubeletHasSufficientMemory", "kubelet has sufficient memory available"},
		{"KubeletHasInsufficientMemory", "kubelet has insufficient memory available"},
	},
	v1.NodeDiskPressure: {
		{"KubeletHasNoDiskPressure", "kubelet has no disk pressure"},
		{"KubeletHasDiskPressure", "kubelet has disk pressure"},
	},
	v1.NodePIDPressure: {
		{"KubeletHasSufficientPID", "kubelet has sufficient PID available"},
		{"KubeletHasInsufficientPID", "kubelet has insufficient PID available"},
	},
}

// machine is what never changes while the agent runs.
type machine struct {
	cpus                        int
	memory, swap, disk          uint64 // bytes
	hugepages                   map[string]uint64
	machineID, systemUUID, boot string
	kernel, osImage             string
	goos, goarch, kubelet       string

	// resources, if set, are the capacity in place of what is measured, addresses
	// what is reported in place of the agent's.
	resources v1.ResourceList
	addresses []v1.NodeAddress
}

// runtimeState is what CRI said about itself.
type runtimeState struct {
	answered  time.Time // of the last answer; zero: never
	silent    bool      // the last question had no answer
	condition []runtimeCondition
	version   string // containerd://2.4.2
	handlers  []v1.NodeRuntimeHandler
	features  *v1.NodeFeatures
}

type runtimeCondition struct {
	kind, reason, message string
	ok                    bool
}

// usage is what is left of what a machine can run out of.
type usage struct {
	memoryAvailable        uint64
	diskAvailable, disk    uint64
	inodesAvailable, inode uint64
}

// observation is one look at everything that the status reports.
type observation struct {
	runtime  runtimeState
	usage    usage
	images   []v1.ContainerImage // nil: not listed yet
	volumes  []v1.UniqueVolumeName
	pressed  map[v1.NodeConditionType]time.Time // when each pressure was last seen
	existing *v1.Node                           // nil: there is none yet
}

// identity is the part of Config that the plan needs.
type identity struct {
	name, ip string
	port     int
	maxPods  int
	labels   map[string]string
}

// outcome is what is to be done: write the Node, if it is not nil, because of the
// reason, then publish the events; and look again after the pause.
type outcome struct {
	write  *v1.Node
	reason string
	events []nodeEvent
	again  time.Duration
	ready  bool
}

type nodeEvent struct{ reason, message string }

// plan compares the Node with what was observed. waited is the last pause, for
// the back-off while the runtime is not ready.
func plan(id identity, m machine, o observation, waited time.Duration, now time.Time) outcome {
	wanted := desired(id, m, o, now)
	ready := condition(wanted, v1.NodeReady).Status == v1.ConditionTrue
	out := outcome{again: StatusUpdateFrequency, ready: ready}
	if !ready || o.runtime.silent {
		out.again = min(max(2*waited, lookSoonest), lookLatest)
	}
	switch {
	case o.existing == nil:
		out.write, out.reason = wanted, "there is no Node yet"
	case !equality.Semantic.DeepEqual(timeless(o.existing), timeless(wanted)):
		out.write, out.reason = wanted, "the status or a label of the Node changed"
	case now.Sub(condition(o.existing, v1.NodeReady).LastHeartbeatTime.Time) >= StatusReportFrequency:
		out.write, out.reason = wanted, "the last report is five minutes old"
	}
	if out.write != nil {
		out.events = transitions(o.existing, wanted)
	}
	return out
}

// desired is the existing Node with everything that is ours set as observed.
// What others own (spec, foreign labels, conditions and resources, attached
// volumes) stays as it is.
func desired(id identity, m machine, o observation, now time.Time) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: id.name}}
	if o.existing != nil {
		n = o.existing.DeepCopy()
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	maps.Copy(n.Labels, labels(id, m))
	if n.Annotations == nil {
		n.Annotations = map[string]string{}
	}
	// The attach-detach controller attaches volumes only for nodes that say so.
	n.Annotations["volumes.kubernetes.io/controller-managed-attach-detach"] = "true"

	s := &n.Status
	setResources(s, capacity(m, id.maxPods))
	s.Addresses = m.addresses
	if s.Addresses == nil {
		s.Addresses = []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: id.ip}, {Type: v1.NodeHostName, Address: id.name}}
	}
	s.DaemonEndpoints.KubeletEndpoint.Port = int32(id.port)
	s.NodeInfo = v1.NodeSystemInfo{
		MachineID: m.machineID, SystemUUID: m.systemUUID, BootID: m.boot,
		KernelVersion: m.kernel, OSImage: m.osImage, OperatingSystem: m.goos, Architecture: m.goarch,
		KubeletVersion: m.kubelet, ContainerRuntimeVersion: o.runtime.version,
	}
	if m.swap > 0 {
		bytes := int64(m.swap)
		s.NodeInfo.Swap = &v1.NodeSwapStatus{Capacity: &bytes}
	}
	if o.runtime.version == "" { // not heard of it yet: keep what the last agent knew
		s.NodeInfo.ContainerRuntimeVersion = "Unknown"
		if o.existing != nil && o.existing.Status.NodeInfo.ContainerRuntimeVersion != "" {
			s.NodeInfo.ContainerRuntimeVersion = o.existing.Status.NodeInfo.ContainerRuntimeVersion
		}
	} else {
		s.RuntimeHandlers, s.Features = o.runtime.handlers, o.runtime.features
	}
	if o.images != nil { // as with the runtime's version
		s.Images = o.images
	}
	s.VolumesInUse = o.volumes
	s.DeclaredFeatures = slices.Clone(declaredFeatures)

	for _, kind := range []v1.NodeConditionType{v1.NodeMemoryPressure, v1.NodeDiskPressure, v1.NodePIDPressure} {
		setCondition(s, pressureCondition(kind, o, now), now)
	}
	setCondition(s, readyCondition(o.runtime, now), now)
	return n
}

// declaredFeatures are all that the API server and the scheduler can ask for and that this
// agent can do, sorted: they refuse or avoid it for a Node that does not say so. The
// names are those of upstream's feature gates (KEP-5328).
var declaredFeatures = []string{
	extendwebsocketstokubelet.ExtendWebSocketsToKubeletFeatureGate,
	inplacepodresize.IPPRPodLevelResourcesFeatureGate,
	inplacepodresize.IPPRInitContainersFeatureGate,
	restartallcontainers.RestartAllContainersOnContainerExits,
}

func labels(id identity, m machine) map[string]string {
	l := map[string]string{
		v1.LabelHostname: id.name, v1.LabelOSStable: m.goos, v1.LabelArchStable: m.goarch,
		"beta.kubernetes.io/os": m.goos, "beta.kubernetes.io/arch": m.goarch,
	}
	maps.Copy(l, id.labels)
	return l
}

func capacity(m machine, maxPods int) v1.ResourceList {
	c := v1.ResourceList{
		v1.ResourceCPU:              *resource.NewMilliQuantity(int64(m.cpus)*1000, resource.DecimalSI),
		v1.ResourceMemory:           *resource.NewQuantity(int64(m.memory), resource.BinarySI),
		v1.ResourceEphemeralStorage: *resource.NewQuantity(int64(m.disk), resource.BinarySI),
		v1.ResourcePods:             *resource.NewQuantity(int64(maxPods), resource.DecimalSI),
	}
	maps.Copy(c, m.resources)
	for size, bytes := range m.hugepages {
		c[v1.ResourceName(v1.ResourceHugePagesPrefix+size)] = *resource.NewQuantity(int64(bytes), resource.BinarySI)
	}
	return c
}

// reserved is the part of a capacity that stays with the machine.
func reserved(c v1.ResourceList) v1.ResourceList {
	disk := int64(diskReserved * float64(c.StorageEphemeral().Value()))
	return v1.ResourceList{
		v1.ResourceMemory:           *resource.NewQuantity(min(memoryReserved, c.Memory().Value()), resource.BinarySI),
		v1.ResourceEphemeralStorage: *resource.NewQuantity(disk, resource.BinarySI),
	}
}

// allocatable is what pods may request: the capacity less what is reserved, and
// less the memory that stands by as huge pages.
func allocatable(c v1.ResourceList) v1.ResourceList {
	a, kept := c.DeepCopy(), reserved(c)
	memory := a[v1.ResourceMemory]
	memory.Sub(*kept.Memory())
	for name, size := range c {
		if strings.HasPrefix(string(name), v1.ResourceHugePagesPrefix) {
			memory.Sub(size)
		}
	}
	if memory.Sign() < 0 {
		memory.Set(0)
	}
	a[v1.ResourceMemory] = memory
	disk := a[v1.ResourceEphemeralStorage]
	disk.Sub(*kept.StorageEphemeral())
	a[v1.ResourceEphemeralStorage] = disk
	return a
}

// setResources sets ours and keeps those of others (device plugins, extended
// resources that an administrator patched in).
func setResources(s *v1.NodeStatus, c v1.ResourceList) {
	if s.Capacity == nil {
		s.Capacity = v1.ResourceList{}
	}
	if s.Allocatable == nil {
		s.Allocatable = v1.ResourceList{}
	}
	for name := range s.Capacity {
		if _, ours := c[name]; !ours && strings.HasPrefix(string(name), v1.ResourceHugePagesPrefix) {
			delete(s.Capacity, name)
			delete(s.Allocatable, name)
		}
	}
	maps.Copy(s.Capacity, c)
	maps.Copy(s.Allocatable, allocatable(c))
	for name, q := range s.Capacity {
		if _, ok := s.Allocatable[name]; !ok {
			s.Allocatable[name] = q.DeepCopy()
		}
	}
}

func readyCondition(r runtimeState, now time.Time) v1.NodeCondition {
	var problems []string
	switch {
	case r.answered.IsZero():
		problems = append(problems, runtimeNotAsked)
	case now.Sub(r.answered) > runtimeGrace:
		problems = append(problems, runtimeDown)
	}
	if !r.answered.IsZero() {
		for _, need := range []struct{ kind, problem string }{
			{"RuntimeReady", "container runtime not ready"},
			{"NetworkReady", "container runtime network not ready"},
		} {
			i := slices.IndexFunc(r.condition, func(c runtimeCondition) bool { return c.kind == need.kind })
			switch {
			case i < 0:
				problems = append(problems, need.problem+": <nil>")
			case !r.condition[i].ok:
				problems = append(problems, need.problem+": "+r.condition[i].String())
			}
		}
	}
	switch len(problems) {
	case 0:
		return v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: reasonReady, Message: messageReady}
	case 1:
		return v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionFalse, Reason: reasonNotReady, Message: problems[0]}
	}
	return v1.NodeCondition{
		Type: v1.NodeReady, Status: v1.ConditionFalse, Reason: reasonNotReady,
		Message: "[" + strings.Join(problems, ", ") + "]",
	}
}

func (c runtimeCondition) String() string {
	return fmt.Sprintf("%s=%t reason:%s message:%s", c.kind, c.ok, c.reason, c.message)
}

// pressed says which pressures a look at the machine shows. There is no
// threshold for process IDs, as upstream has none by default.
func pressed(u usage) map[v1.NodeConditionType]bool {
	return map[v1.NodeConditionType]bool{
		v1.NodeMemoryPressure: u.memoryAvailable < memoryReserved,
		v1.NodeDiskPressure: float64(u.diskAvailable) < diskReserved*float64(u.disk) ||
			float64(u.inodesAvailable) < inodesKeptFree*float64(u.inode),
	}
}

func pressureCondition(kind v1.NodeConditionType, o observation, now time.Time) v1.NodeCondition {
	texts := pressureTexts[kind]
	last, ever := o.pressed[kind]
	if pressed(o.usage)[kind] || (ever && now.Sub(last) < PressureTransitionPeriod) {
		return v1.NodeCondition{Type: kind, Status: v1.ConditionTrue, Reason: texts[1].reason, Message: texts[1].message}
	}
	return v1.NodeCondition{Type: kind, Status: v1.ConditionFalse, Reason: texts[0].reason, Message: texts[0].message}
}

// setCondition replaces the condition of that type. The time of the transition
// stays unless the status changed.
func setCondition(s *v1.NodeStatus, c v1.NodeCondition, now time.Time) {
	c.LastHeartbeatTime, c.LastTransitionTime = metav1.NewTime(now), metav1.NewTime(now)
	for i := range s.Conditions {
		if s.Conditions[i].Type == c.Type {
			if s.Conditions[i].Status == c.Status {
				c.LastTransitionTime = s.Conditions[i].LastTransitionTime
			}
			s.Conditions[i] = c
			return
		}
	}
	s.Conditions = append(s.Conditions, c)
}

func condition(n *v1.Node, kind v1.NodeConditionType) v1.NodeCondition {
	if n != nil {
		for _, c := range n.Status.Conditions {
			if c.Type == kind {
				return c
			}
		}
	}
	return v1.NodeCondition{Type: kind}
}

// timeless is the Node without what changes at every look.
func timeless(n *v1.Node) *v1.Node {
	c := n.DeepCopy()
	for i := range c.Status.Conditions {
		c.Status.Conditions[i].LastHeartbeatTime = metav1.Time{}
	}
	return c
}

// transitions are the Events that a change deserves, in upstream's words.
func transitions(before, after *v1.Node) []nodeEvent {
	var events []nodeEvent
	if before != nil && before.Status.NodeInfo.BootID != "" && before.Status.NodeInfo.BootID != after.Status.NodeInfo.BootID {
		events = append(events, nodeEvent{
			reasonRebooted,
			fmt.Sprintf("Node %s has been rebooted, boot id: %s", after.Name, after.Status.NodeInfo.BootID),
		})
	}
	for _, c := range after.Status.Conditions {
		if condition(before, c.Type).Status == c.Status {
			continue
		}
		var reason string
		_, isPressure := pressureTexts[c.Type]
		switch {
		case isPressure:
			reason = strings.Replace(c.Reason, "Kubelet", "Node", 1)
		case c.Type == v1.NodeReady && c.Status == v1.ConditionTrue:
			reason = "NodeReady"
		case c.Type == v1.NodeReady && before != nil && condition(before, v1.NodeReady).Status == v1.ConditionTrue:
			reason = "NodeNotReady"
		default:
			continue
		}
		events = append(events, nodeEvent{reason, fmt.Sprintf("Node %s status is now: %s", after.Name, reason)})
	}
	return events
}
