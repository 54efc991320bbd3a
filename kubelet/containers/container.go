package containers

import (
	"fmt"
	"strings"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/kubelet/qos"

	"flyball.dev/kubelet/cgroups"
	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/volumes"
)

// ReasonCreateContainerConfigError is the reason of every Error that this package returns.
const ReasonCreateContainerConfigError = "CreateContainerConfigError"

// Error is why a container does not start: a reason and a message of the Pod's status.
type Error struct {
	Reason, Message string
	Err             error
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func configError(err error) *Error {
	return &Error{Reason: ReasonCreateContainerConfigError, Message: err.Error(), Err: err}
}

// ImageUser is the user of an image, from CRI's ImageStatus.
type ImageUser struct {
	UID  *int64
	Name string
}

// Input is all that a container's config depends on.
type Input struct {
	Node Node
	Pod  *v1.Pod
	// Container of any kind. An ephemeral container is passed as
	// v1.Container(ec.EphemeralContainerCommon).
	Container *v1.Container
	// RuntimeHandler of the sandbox, "" for the default one.
	RuntimeHandler string
	// TargetID is the container ID whose PID namespace an ephemeral container joins, if any.
	TargetID string
	Attempt  uint32
	ImageRef string
	// ImageUser is the user of containers that set none, and checked by runAsNonRoot.
	ImageUser ImageUser
	// Env from Environment.
	Env    []*runtimeapi.KeyValue
	PodIPs []string
	// Volumes from volumes.Manager.Mount, Files from volumes.Manager.Prepare.
	Volumes map[string]volumes.Mounted
	Files   volumes.Files
	// VolumeImages are the IDs of image volumes, by volume.
	VolumeImages map[string]string
}

// Files describes the files that the container needs on the host before it is created. It reads
// Node, Pod, Container, Attempt, Env, PodIPs and Volumes of the Input.
func Files(in Input) (volumes.FilesSpec, error) {
	c := in.Container
	spec := volumes.FilesSpec{Container: c.Name, Attempt: in.Attempt, TerminationLog: c.TerminationMessagePath != ""}
	var err error
	if wantsHosts(in) {
		if spec.Hosts, err = hostsFile(in.Pod, in.PodIPs, in.Node.ClusterDomain); err != nil {
			return spec, configError(err)
		}
	}
	if spec.SubPaths, err = subPaths(in); err != nil {
		return spec, configError(err)
	}
	return spec, nil
}

// Container renders the config of one container. Errors are *Error.
func Container(in Input) (*runtimeapi.ContainerConfig, error) {
	pod, c := in.Pod, in.Container
	security, err := securityContext(in)
	if err != nil {
		return nil, configError(err)
	}
	mounts, err := mounts(in)
	if err != nil {
		return nil, configError(err)
	}
	devices, err := devices(in)
	if err != nil {
		return nil, configError(err)
	}
	annotations, err := containerAnnotations(pod, c, in.Attempt)
	if err != nil {
		return nil, configError(err)
	}
	refs := lo.Map(mounts, func(m *runtimeapi.Mount, _ int) string { return m.GetImage().GetImage() })
	if refs = lo.Uniq(lo.Compact(refs)); len(refs) > 0 {
		annotations[cri.AnnotationImageVolumes] = strings.Join(refs, ",")
	}
	signal, err := stopSignal(c)
	if err != nil {
		return nil, configError(err)
	}
	command, args := kubecontainer.ExpandContainerCommandAndArgs(c, envVars(in.Env))
	labels := podLabels(pod, in.Node.Owner)
	labels[cri.LabelContainerName] = c.Name
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: in.Attempt},
		Image:    &runtimeapi.ImageSpec{Image: in.ImageRef, UserSpecifiedImage: c.Image},
		Command:  command, Args: args, WorkingDir: c.WorkingDir, Envs: in.Env, Mounts: mounts, Devices: devices,
		Labels: labels, Annotations: annotations,
		LogPath: relativeLogPath(c.Name, in.Attempt),
		Stdin:   c.Stdin, StdinOnce: c.StdinOnce, Tty: c.TTY, StopSignal: signal,
		Linux: &runtimeapi.LinuxContainerConfig{Resources: Resources(in.Node, pod, c), SecurityContext: security},
	}, nil
}

func stopSignal(c *v1.Container) (runtimeapi.Signal, error) {
	if c.Lifecycle == nil || c.Lifecycle.StopSignal == nil {
		return runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT, nil
	}
	v, ok := runtimeapi.Signal_value["SIGNAL_"+string(*c.Lifecycle.StopSignal)]
	if !ok {
		return 0, fmt.Errorf("unknown stop signal %q", *c.Lifecycle.StopSignal)
	}
	return runtimeapi.Signal(v), nil
}

func envVars(env []*runtimeapi.KeyValue) []kubecontainer.EnvVar {
	return lo.Map(env, func(kv *runtimeapi.KeyValue, _ int) kubecontainer.EnvVar {
		return kubecontainer.EnvVar{Name: kv.Key, Value: string(kv.Value)}
	})
}

// Resources renders the limits of a container that is created.
func Resources(node Node, pod *v1.Pod, c *v1.Container) *runtimeapi.LinuxContainerResources {
	limits := cri.Limits(pod.Spec.Resources, c.Resources)
	r := linuxResources(node, c.Resources.Requests, limits)
	score := qos.GetContainerOOMScoreAdjust(pod, c, max(node.MemoryCapacity, 1))
	r.OomScoreAdj = max(int64(score), node.LowestOOMScoreAdj)
	wanted := cgroups.Hugepages(limits)
	for _, size := range node.HugepageSizes { // each that the kernel has, nothing if the container asks for none
		r.HugepageLimits = append(r.HugepageLimits, &runtimeapi.HugepageLimit{PageSize: size, Limit: wanted[size]})
	}
	if node.SwapController {
		// Containers do not swap: their memory limit bounds memory and swap together.
		if node.CgroupV2 {
			r.Unified["memory.swap.max"] = "0"
		} else {
			r.MemorySwapLimitInBytes = r.MemoryLimitInBytes
		}
	}
	return r
}

// Update renders the limits of a running container, without those that cannot change.
func Update(node Node, pod *v1.Pod, c *v1.Container) *runtimeapi.LinuxContainerResources {
	r := Resources(node, pod, c)
	r.HugepageLimits = nil
	return r
}

// linuxResources converts CPU and memory. A container with a limit and no request requests its
// limit.
func linuxResources(node Node, requests, limits v1.ResourceList) *runtimeapi.LinuxContainerResources {
	request, ok := requests[v1.ResourceCPU]
	if !ok {
		request = *limits.Cpu()
	}
	r := &runtimeapi.LinuxContainerResources{
		CpuShares:          int64(cgroups.Shares(request.MilliValue())),
		CpuPeriod:          int64(cgroups.QuotaPeriod),
		CpuQuota:           cgroups.Quota(limits.Cpu().MilliValue()),
		MemoryLimitInBytes: limits.Memory().Value(),
	}
	if node.CgroupV2 {
		// The kernel's OOM killer ends all processes of a container, since half a container is of
		// no use.
		r.Unified = map[string]string{"memory.oom.group": "1"}
	}
	return r
}
