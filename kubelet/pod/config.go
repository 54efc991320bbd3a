package pod

import (
	"context"
	"net/http"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/pod/plan"
	"flyball.dev/kubelet/probes"
	"flyball.dev/kubelet/volumes"
)

// Config of a Manager. Everything is required but what says what happens without it,
// and Recorder and Leftovers.
type Config struct {
	// NodeName of this node; the Manager runs the Pods bound to it.
	NodeName string
	// Node is what of the node enters the status, Render what enters CRI configs.
	Node   plan.Node
	Render containers.Node
	// Client with the identity of the node. It must not limit its own rate:
	// status writes would queue behind each other.
	Client kubernetes.Interface

	// Pods is where the Pods of this node are learnt of; a watch of them if nil.
	Pods Source

	Observer   Observer
	Sandboxes  Sandboxes
	Containers Containers
	Resizer    Resizer
	Volumes    Volumes
	Images     Images
	Cgroups    Cgroups
	Probes     Probes
	// Env is where environments take their values from.
	Env containers.EnvSources

	// NodeObject returns the Node as it was last watched, nil if it was not seen yet.
	// Pods that do not fit it are refused.
	NodeObject func() *v1.Node
	// Sysctls says why the node forbids the sysctls of a Pod, with the reason and the message
	// of the refusal; both are empty if it does not. May be nil: all are allowed.
	Sysctls func(*v1.Pod) (reason, message string)
	// NetworkError says why no sandbox can have a network now; it is asked when one
	// could not be created. May be nil.
	NetworkError func(ctx context.Context) error
	// Report is told of a runtime that hangs. May be nil.
	Report func(error)
	// Recorder publishes Events.
	Recorder record.EventRecorder
	// Leftovers lists Pods of which something besides sandboxes may be left on
	// this node, such as directories and cgroups. It is asked once at the start.
	Leftovers func() ([]types.UID, error)
	// AllocationDir is where the resources of resized Pods are kept; they are
	// forgotten with the process if it is empty.
	AllocationDir string
	// LogLinks is the directory for the links that log shippers follow,
	// /var/log/containers; none are made if it is empty.
	LogLinks string
	// HookTransport makes the requests of HTTP hooks; one to the network if nil.
	HookTransport http.RoundTripper
	// Parallel is how many sandboxes and containers are being created at once; 0
	// means twice the number of CPUs.
	Parallel int
}

// Observer reads the runtime. *cri.Client is one.
type Observer interface {
	// Observe returns what the runtime knows about a Pod.
	Observe(ctx context.Context, uid types.UID) (cri.Pod, error)
	// Watch calls changed, which does not block, for each Pod that changes in the
	// runtime, and once for each that is there, until ctx ends.
	Watch(ctx context.Context, changed func(types.UID))
}

// Sandboxes are the calls of CRI's RuntimeService about sandboxes.
type Sandboxes interface {
	RunPodSandbox(ctx context.Context, in *runtimeapi.RunPodSandboxRequest, opts ...grpc.CallOption) (*runtimeapi.RunPodSandboxResponse, error)
	StopPodSandbox(ctx context.Context, in *runtimeapi.StopPodSandboxRequest, opts ...grpc.CallOption) (*runtimeapi.StopPodSandboxResponse, error)
	RemovePodSandbox(ctx context.Context, in *runtimeapi.RemovePodSandboxRequest, opts ...grpc.CallOption) (*runtimeapi.RemovePodSandboxResponse, error)
}

// Containers are the calls of CRI's RuntimeService about containers.
type Containers interface {
	CreateContainer(ctx context.Context, in *runtimeapi.CreateContainerRequest, opts ...grpc.CallOption) (*runtimeapi.CreateContainerResponse, error)
	StartContainer(ctx context.Context, in *runtimeapi.StartContainerRequest, opts ...grpc.CallOption) (*runtimeapi.StartContainerResponse, error)
	StopContainer(ctx context.Context, in *runtimeapi.StopContainerRequest, opts ...grpc.CallOption) (*runtimeapi.StopContainerResponse, error)
	RemoveContainer(ctx context.Context, in *runtimeapi.RemoveContainerRequest, opts ...grpc.CallOption) (*runtimeapi.RemoveContainerResponse, error)
	ExecSync(ctx context.Context, in *runtimeapi.ExecSyncRequest, opts ...grpc.CallOption) (*runtimeapi.ExecSyncResponse, error)
}

// Resizer changes running containers. *cri.Client is one.
type Resizer interface {
	// Resize changes the resources of a running container. What Observe tells next is
	// what the container has then.
	Resize(ctx context.Context, id string, resources *runtimeapi.LinuxContainerResources) error
	// MemoryUsage in bytes.
	MemoryUsage(ctx context.Context, id string) (uint64, error)
}

// Volumes makes and removes the files of a Pod. *volumes.Manager is one. All
// methods are idempotent and work without memory of an earlier process.
type Volumes interface {
	Mount(ctx context.Context, pod *v1.Pod) (map[string]volumes.Mounted, error)
	Prepare(ctx context.Context, pod *v1.Pod, mounted map[string]volumes.Mounted, spec volumes.FilesSpec) (volumes.Files, error)
	Unmount(ctx context.Context, uid types.UID) error
}

// Images makes images present. *images.Manager is one.
type Images interface {
	// Ensure may block for as long as a pull takes; it ends with ctx.
	Ensure(ctx context.Context, pod *v1.Pod, c *v1.Container, sandbox *runtimeapi.PodSandboxConfig, rec func(eventtype, reason, msg string)) (ref string, err error)
	// EnsureVolume is Ensure for the image of a volume.
	EnsureVolume(ctx context.Context, pod *v1.Pod, vol *v1.ImageVolumeSource, sandbox *runtimeapi.PodSandboxConfig, rec func(eventtype, reason, msg string)) (ref string, err error)
	User(ctx context.Context, ref string) (uid *int64, name string, err error)
}

// Cgroups keeps the cgroups of Pods. *cgroups.Manager is one.
type Cgroups interface {
	// EnsurePod makes the cgroup with the limits of the Pod, or sets them.
	EnsurePod(pod *v1.Pod) (cgroupParent string, err error)
	// GrowPod sets those limits that are above what the cgroup has.
	GrowPod(pod *v1.Pod) error
	// PodMemory in bytes, and whether EnsurePod would lower the limit.
	PodMemory(pod *v1.Pod) (usage, limit int64, lower bool, err error)
	RemovePod(uid types.UID) error
}

// Probes runs probes. *probes.Manager is one.
type Probes interface {
	Set(pod *v1.Pod, running []probes.Target)
	// Changes are the Pods for which Results has changed. Probes wait until they are read.
	Changes() <-chan types.UID
	Results(uid types.UID) map[string]probes.Result
	Remove(uid types.UID)
}
