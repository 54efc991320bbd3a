package pod

import (
	"context"
	"net/http"

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

// Config of a Manager. A field is required unless its comment says otherwise.
type Config struct {
	NodeName string          // the Manager runs the Pods bound to it
	Node     plan.Node       // enters the status of Pods
	Render   containers.Node // enters the CRI configs
	// Client with the identity of the node. It must not limit its own rate: status writes would
	// queue behind each other.
	Client kubernetes.Interface
	// Pods of this node; a watch of the API server if nil.
	Pods Source

	Runtime Runtime
	CRI     runtimeapi.RuntimeServiceClient // makes, stops and removes sandboxes and containers, and runs hooks
	Volumes Volumes
	Images  Images
	Cgroups Cgroups
	Probes  Probes
	Env     containers.EnvSources

	// NodeObject returns the Node as it was last watched, nil if it was not seen yet. The Manager
	// refuses Pods that do not fit it.
	NodeObject func() *v1.Node
	// Sysctls returns the reason and the message of the refusal if the node forbids the sysctls of
	// a Pod, and empty strings if not. Optional: without it all sysctls are allowed.
	Sysctls func(*v1.Pod) (reason, message string)
	// NetworkError returns why no sandbox can have a network at present. The Manager calls it after
	// a sandbox could not be created. Optional.
	NetworkError func(ctx context.Context) error
	// Report receives the error when the runtime hangs. Optional.
	Report func(error)
	// Recorder publishes Events. Optional.
	Recorder record.EventRecorder
	// Leftovers lists Pods that may have left something on this node besides sandboxes, such as
	// directories and cgroups. The Manager calls it once, at the start. Optional.
	Leftovers func() ([]types.UID, error)
	// AllocationDir keeps the resources of resized Pods. Without it they are lost with the process.
	AllocationDir string
	// LogLinks is the directory for the links that log shippers follow, /var/log/containers.
	// Without it the Manager makes none.
	LogLinks string
	// HookTransport makes the requests of HTTP hooks; http.Transport if nil.
	HookTransport http.RoundTripper
	// Parallel is how many sandboxes and containers may be in creation at once; 0 means twice the
	// number of CPUs.
	Parallel int
}

// Runtime is the container runtime. *remote.Client is one.
type Runtime interface {
	// Observe returns what the runtime knows about a Pod.
	Observe(ctx context.Context, uid types.UID) (cri.Pod, error)
	// Watch calls changed for each Pod that changes in the runtime, and once for each Pod that the
	// runtime has at the start, until ctx ends. changed does not block.
	Watch(ctx context.Context, changed func(types.UID))
	// Resize changes the resources of a running container. The next Observe returns the new ones.
	Resize(ctx context.Context, pod types.UID, id string, resources *runtimeapi.LinuxContainerResources) error
	// MemoryUsage in bytes.
	MemoryUsage(ctx context.Context, id string) (uint64, error)
}

// Volumes makes and removes the files of a Pod. *volumes.Manager is one. All methods are idempotent
// and work without memory of an earlier process.
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
	Results(uid types.UID) map[string]cri.Probed
	Remove(uid types.UID)
}
