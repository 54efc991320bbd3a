package node

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/nodedeclaredfeatures/features/extendwebsocketstokubelet"
	"k8s.io/component-helpers/nodedeclaredfeatures/features/inplacepodresize"
	"k8s.io/component-helpers/nodedeclaredfeatures/features/restartallcontainers"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
)

const (
	// StatusReportFrequency is how often an unchanged status is written; in between the Lease is
	// the heartbeat.
	StatusReportFrequency = 5 * time.Minute
	// StatusUpdateFrequency is how often pressure is measured: no event announces it.
	StatusUpdateFrequency = 10 * time.Second
	// While the runtime is not ready, it is asked again soon: CRI has no event for its conditions,
	// and the first Ready of a node waits for nothing else.
	retrySoonest, retryLatest = 20 * time.Millisecond, time.Second
)

// state is everything that the status reports, as observed.
type state struct {
	runtime    runtimeState
	usage      usage
	images     []v1.ContainerImage // nil: not listed yet
	volumes    []v1.UniqueVolumeName
	pressureAt map[v1.NodeConditionType]time.Time // when each pressure was last observed
	existing   *v1.Node                           // nil: there is none yet
}

// runtimeState is what CRI reports of the runtime.
type runtimeState struct {
	answered time.Time                   // of the last answer; zero: never
	silent   bool                        // the last call had no answer
	status   kubecontainer.RuntimeStatus // only its conditions
	version  string                      // containerd://2.4.2
	handlers []v1.NodeRuntimeHandler
	features *v1.NodeFeatures
}

// identity is the configuration that the plan needs.
type identity struct {
	name   string
	port   int
	labels map[string]string
	host   HostInfo
}

// outcome is what is to be done: write the Node, if it is not nil, for the reason, then publish the
// events, and reconcile again after the pause.
type outcome struct {
	write        *v1.Node
	reason       string
	events       []event
	ready        bool
	requeueAfter time.Duration
}

type event struct{ reason, message string }

// plan compares the Node with what was observed. pause is the last requeueAfter, for the back-off
// while the runtime is not ready.
func plan(id identity, s state, pause time.Duration, now time.Time) outcome {
	wanted := desired(id, s, now)
	ready := condition(wanted, v1.NodeReady).Status == v1.ConditionTrue
	out := outcome{requeueAfter: StatusUpdateFrequency, ready: ready}
	if !ready || s.runtime.silent {
		out.requeueAfter = min(max(2*pause, retrySoonest), retryLatest)
	}
	switch {
	case s.existing == nil:
		out.write, out.reason = wanted, "there is no Node yet"
	case !equality.Semantic.DeepEqual(withoutHeartbeats(s.existing), withoutHeartbeats(wanted)):
		out.write, out.reason = wanted, "the status or a label of the Node changed"
	case now.Sub(condition(s.existing, v1.NodeReady).LastHeartbeatTime.Time) >= StatusReportFrequency:
		out.write, out.reason = wanted, "the last report is five minutes old"
	}
	if out.write != nil {
		out.events = transitions(s.existing, wanted)
	}
	return out
}

// desired is the existing Node with our fields set as observed. The fields of others (spec, other
// labels, conditions and resources, attached volumes) stay as they are.
func desired(id identity, s state, now time.Time) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: id.name}}
	if s.existing != nil {
		n = s.existing.DeepCopy()
	}
	n.Labels = lo.Assign(n.Labels, labels(id))
	// The attach-detach controller attaches volumes only for nodes with this annotation.
	metav1.SetMetaDataAnnotation(&n.ObjectMeta, "volumes.kubernetes.io/controller-managed-attach-detach", "true")

	status := &n.Status
	setResources(status, id.host.Capacity)
	status.Addresses = id.host.Addresses
	status.DaemonEndpoints.KubeletEndpoint.Port = int32(id.port)
	// Until the runtime has answered, keep what the last agent wrote.
	version := cmp.Or(s.runtime.version, status.NodeInfo.ContainerRuntimeVersion, "Unknown")
	status.NodeInfo = id.host.System
	status.NodeInfo.ContainerRuntimeVersion = version
	if s.runtime.version != "" {
		status.RuntimeHandlers, status.Features = s.runtime.handlers, s.runtime.features
	}
	if s.images != nil { // as with the runtime's version
		status.Images = s.images
	}
	status.VolumesInUse = s.volumes
	status.DeclaredFeatures = slices.Clone(declaredFeatures)
	setConditions(status, s, now)
	return n
}

// declaredFeatures, sorted, are those that this agent has of the features that the API server and
// the scheduler require of Nodes: they avoid a Node that does not declare them. The names are those
// of upstream's feature gates (KEP-5328).
var declaredFeatures = []string{
	extendwebsocketstokubelet.ExtendWebSocketsToKubeletFeatureGate,
	inplacepodresize.IPPRPodLevelResourcesFeatureGate,
	inplacepodresize.IPPRInitContainersFeatureGate,
	restartallcontainers.RestartAllContainersOnContainerExits,
}

func labels(id identity) map[string]string {
	os, arch := id.host.System.OperatingSystem, id.host.System.Architecture
	return lo.Assign(map[string]string{
		v1.LabelHostname: id.name, v1.LabelOSStable: os, v1.LabelArchStable: arch,
		"beta.kubernetes.io/os": os, "beta.kubernetes.io/arch": arch,
	}, id.labels)
}

// withoutHeartbeats is the Node without the times that each write changes.
func withoutHeartbeats(n *v1.Node) *v1.Node {
	c := n.DeepCopy()
	for i := range c.Status.Conditions {
		c.Status.Conditions[i].LastHeartbeatTime = metav1.Time{}
	}
	return c
}

// transitions are the Events about a change, with upstream's reasons and messages.
func transitions(before, after *v1.Node) []event {
	var events []event
	if before == nil {
		before = &v1.Node{}
	}
	if was, is := before.Status.NodeInfo.BootID, after.Status.NodeInfo.BootID; was != "" && was != is {
		events = append(events, event{"NodeRebooted", fmt.Sprintf("Node %s has been rebooted, boot id: %s", after.Name, is)})
	}
	for _, c := range after.Status.Conditions {
		was := condition(before, c.Type).Status
		if was == c.Status {
			continue
		}
		var reason string
		switch _, isPressure := pressureTexts[c.Type]; {
		case isPressure:
			reason = strings.Replace(c.Reason, "Kubelet", "Node", 1)
		case c.Type == v1.NodeReady && c.Status == v1.ConditionTrue:
			reason = "NodeReady"
		case c.Type == v1.NodeReady && was == v1.ConditionTrue:
			reason = "NodeNotReady"
		default:
			continue
		}
		events = append(events, event{reason, fmt.Sprintf("Node %s status is now: %s", after.Name, reason)})
	}
	return events
}
