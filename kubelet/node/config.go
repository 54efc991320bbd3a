package node

import (
	"net/netip"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/internal/trigger"
)

// DefaultLeaseDuration is how long the Lease is valid after a renewal.
const DefaultLeaseDuration = 40 * time.Second

// Config of a Controller. A field is required unless its comment says otherwise.
type Config struct {
	Name string
	// IPs are the addresses of the Node: one or two, the primary first.
	IPs     []netip.Addr
	Client  kubernetes.Interface
	Runtime runtimeapi.RuntimeServiceClient
	Images  runtimeapi.ImageServiceClient
	Port    int      // of the kubelet's server
	Host    HostInfo // see ReadHostInfo
	// RootDir is on the file system whose pressure is measured. If it is empty, neither disk nor
	// memory is measured, and there is never pressure.
	RootDir string
	// Labels are set on the Node besides the well-known ones, and set again if removed. Optional.
	Labels map[string]string
	// Source watches the Node; one with Client if nil.
	Source Source
	// Trigger requests reconciles from components that are made before the Controller. Optional.
	Trigger trigger.Trigger
	// LeaseDuration is how long the Lease is valid; it is renewed four times as often.
	// DefaultLeaseDuration if zero.
	LeaseDuration time.Duration
	// VolumesInUse lists attached volumes that Pods of this node use. Optional.
	VolumesInUse func() []v1.UniqueVolumeName
	// Changed is called after the Node has changed. It must not block. Optional.
	Changed func()
	// Recorder publishes Events about the Node.
	Recorder record.EventRecorder
	// Report is called each time that the Node cannot be registered or its status cannot be
	// written; both are retried. If nil, the errors are logged.
	Report func(error)
	// Ready is called once, when the API server has accepted that the Node is Ready. Optional.
	Ready func()
}

// HostInfo is what the Node reports of its host. It does not change while the agent runs.
type HostInfo struct {
	// Capacity of the Node, pods included.
	Capacity v1.ResourceList
	// System identifies the host, its kernel and its operating system. The version of the
	// container runtime is not in it, since a runtime may be upgraded while the agent runs.
	System v1.NodeSystemInfo
	// Addresses of the Node; made of Config.IPs and Config.Name if nil.
	Addresses []v1.NodeAddress
}
