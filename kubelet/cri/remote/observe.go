package remote

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/logs"

	"flyball.dev/kubelet/cri"
)

// Observe reads the sandboxes and containers of one Pod.
func (c *Client) Observe(ctx context.Context, uid types.UID) (cri.Pod, error) {
	sandboxes, containers, err := List(ctx, c.Runtime, map[string]string{cri.LabelPodUID: string(uid)})
	if err != nil {
		return cri.Pod{}, fmt.Errorf("observing Pod %s: %w", uid, err)
	}
	c.mu.Lock()
	before := c.observed[uid]
	c.mu.Unlock()
	p := cri.Pod{UID: uid}
	for _, s := range sandboxes {
		if sb, err := c.sandbox(ctx, before, s); err == nil {
			p.Sandboxes = append(p.Sandboxes, sb)
		} else if !IsNotFound(err) {
			return cri.Pod{}, fmt.Errorf("reading sandbox %s: %w", s.Id, err)
		}
	}
	for _, s := range containers {
		if cn, err := c.container(ctx, before, s); err == nil {
			p.Containers = append(p.Containers, cn)
		} else if !IsNotFound(err) {
			return cri.Pod{}, fmt.Errorf("reading container %s: %w", s.Id, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// A copy: the caller may change what it gets.
	c.observed[uid] = cri.Pod{Sandboxes: slices.Clone(p.Sandboxes), Containers: slices.Clone(p.Containers)}
	if len(p.Sandboxes)+len(p.Containers) == 0 {
		delete(c.observed, uid)
	}
	slices.SortFunc(p.Sandboxes, func(a, b cri.Sandbox) int {
		return cmp.Or(cmp.Compare(b.Attempt, a.Attempt), b.CreatedAt.Compare(a.CreatedAt))
	})
	slices.SortFunc(p.Containers, func(a, b cri.Container) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(b.Attempt, a.Attempt), b.CreatedAt.Compare(a.CreatedAt))
	})
	return p, nil
}

// sandbox adds the addresses, which do not change while the sandbox is ready. One that is not ready
// keeps those that it had.
func (c *Client) sandbox(ctx context.Context, before cri.Pod, s *runtimeapi.PodSandbox) (cri.Sandbox, error) {
	ready := s.State == runtimeapi.PodSandboxState_SANDBOX_READY
	i := slices.IndexFunc(before.Sandboxes, func(known cri.Sandbox) bool {
		complete := len(known.IPs) > 0 || known.HostNetwork || !known.Ready
		return known.ID == s.Id && complete && (known.Ready || !ready)
	})
	if i >= 0 {
		known := before.Sandboxes[i]
		known.Ready = ready
		return known, nil
	}
	resp, err := c.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: s.Id})
	if err != nil {
		return cri.Sandbox{}, err
	}
	st := resp.GetStatus()
	sb := cri.Sandbox{
		ID: s.Id, Name: s.GetMetadata().GetName(), Namespace: s.GetMetadata().GetNamespace(),
		Attempt: s.GetMetadata().GetAttempt(), Ready: ready, CreatedAt: nanos(s.CreatedAt), Handler: s.RuntimeHandler,
		HostNetwork: st.GetLinux().GetNamespaces().GetOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE,
	}
	if ip := st.GetNetwork().GetIp(); ip != "" {
		sb.IPs = append(sb.IPs, ip)
		for _, more := range st.GetNetwork().GetAdditionalIps() {
			sb.IPs = append(sb.IPs, more.Ip)
		}
	}
	return sb, nil
}

// container adds the details. It reads them once per state: only the resources change while the
// state stays, see Resize.
func (c *Client) container(ctx context.Context, before cri.Pod, s *runtimeapi.Container) (cri.Container, error) {
	i := slices.IndexFunc(before.Containers, func(known cri.Container) bool {
		return known.ID == s.Id && known.State == stateOf(s.State)
	})
	if i >= 0 {
		return before.Containers[i], nil
	}
	resp, err := c.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: s.Id})
	if err != nil {
		return cri.Container{}, err
	}
	cn := convert(resp.GetStatus(), s.PodSandboxId)
	if cn.State == cri.Exited {
		cn.Message = withTerminationMessage(ctx, resp.GetStatus(), cn)
	}
	return cn, nil
}

func convert(st *runtimeapi.ContainerStatus, sandboxID string) cri.Container {
	cn := cri.Container{
		ID: st.GetId(), SandboxID: sandboxID,
		Name:    cmp.Or(st.GetLabels()[cri.LabelContainerName], st.GetMetadata().GetName()),
		Attempt: st.GetMetadata().GetAttempt(), State: stateOf(st.GetState()),
		CreatedAt: nanos(st.GetCreatedAt()), StartedAt: nanos(st.GetStartedAt()), FinishedAt: nanos(st.GetFinishedAt()),
		ExitCode: st.GetExitCode(), Reason: st.GetReason(), Message: st.GetMessage(),
		Image: st.GetImage().GetImage(), ImageID: st.GetImageRef(), LogPath: st.GetLogPath(),
		Labels: st.GetLabels(), Annotations: st.GetAnnotations(),
	}
	if u := st.GetUser().GetLinux(); u != nil {
		cn.User = &v1.LinuxContainerUser{UID: u.Uid, GID: u.Gid, SupplementalGroups: u.SupplementalGroups}
	}
	if r := st.GetResources().GetLinux(); r != nil {
		cn.Resources = new(ResourcesOf(r))
	}
	return cn
}

// ResourcesOf picks from CRI's resources those that can change while a container runs.
func ResourcesOf(r *runtimeapi.LinuxContainerResources) cri.Resources {
	return cri.Resources{
		CPUShares: r.GetCpuShares(), CPUQuota: r.GetCpuQuota(), CPUPeriod: r.GetCpuPeriod(),
		Memory: r.GetMemoryLimitInBytes(),
	}
}

var states = map[runtimeapi.ContainerState]cri.ContainerState{
	runtimeapi.ContainerState_CONTAINER_CREATED: cri.Created,
	runtimeapi.ContainerState_CONTAINER_RUNNING: cri.Running,
	runtimeapi.ContainerState_CONTAINER_EXITED:  cri.Exited,
}

func stateOf(s runtimeapi.ContainerState) cri.ContainerState { return cmp.Or(states[s], cri.Unknown) }

func nanos(t int64) time.Time { return lo.Ternary(t > 0, time.Unix(0, t), time.Time{}) }

// Resize changes the resources of a running container of a Pod. The next Observe reads them again,
// since an update that failed may have changed some.
func (c *Client) Resize(
	ctx context.Context, pod types.UID, id string, resources *runtimeapi.LinuxContainerResources,
) error {
	in := &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: resources}
	_, err := c.Runtime.UpdateContainerResources(ctx, in)
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.observed[pod]; ok {
		p.Containers = lo.Reject(p.Containers, func(cn cri.Container, _ int) bool { return cn.ID == id })
		c.observed[pod] = p
	}
	return err
}

// MemoryUsage returns how much memory a container uses, in bytes.
func (c *Client) MemoryUsage(ctx context.Context, id string) (uint64, error) {
	resp, err := c.Runtime.ContainerStats(ctx, &runtimeapi.ContainerStatsRequest{ContainerId: id})
	if err != nil {
		return 0, err
	}
	usage := resp.GetStats().GetMemory().GetUsageBytes()
	if usage == nil {
		return 0, fmt.Errorf("reading the memory usage of container %s: the runtime does not report it", id)
	}
	return usage.Value, nil
}

const (
	// Limits of a termination message, from the API documentation of
	// Container.terminationMessagePath and terminationMessagePolicy.
	maxMessageBytes    = 4096
	maxMessageLogBytes = 2048
	maxMessageLogLines = 80
)

// withTerminationMessage appends the termination message: the end of the container's message file,
// or of its log if the policy says so.
func withTerminationMessage(ctx context.Context, st *runtimeapi.ContainerStatus, c cri.Container) string {
	policy := v1.TerminationMessagePolicy(c.Annotations[cri.AnnotationMessagePolicy])
	fallback := policy == v1.TerminationMessageFallbackToLogsOnError && c.ExitCode != 0 && !c.StartedAt.IsZero()

	text, err := readMessageFile(st, c.Annotations[cri.AnnotationMessagePath])
	if err == nil && text == "" && fallback {
		text, err = lastLogLines(ctx, c.LogPath)
	}
	if err != nil {
		text = fmt.Sprintf("Error on reading termination message: %v", err)
	}
	return strings.Join(lo.Compact([]string{c.Message, text}), ": ")
}

// readMessageFile reads the end of the file, also while the container appends to it without end.
func readMessageFile(st *runtimeapi.ContainerStatus, path string) (string, error) {
	m, ok := lo.Find(st.GetMounts(), func(m *runtimeapi.Mount) bool { return path != "" && m.ContainerPath == path })
	if !ok {
		return "", nil
	}
	f, err := os.Open(m.HostPath)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return "", err
	}
	text, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-maxMessageBytes), maxMessageBytes))
	return string(text), err
}

func lastLogLines(ctx context.Context, path string) (string, error) {
	var out bytes.Buffer
	last := &logs.LogOptions{TailLines: new(int64(maxMessageLogLines))}
	if err := logs.ReadLogs(ctx, path, "", last, nil, &out, &out); err != nil {
		return "", err
	}
	text := out.Bytes()
	return string(text[max(0, len(text)-maxMessageLogBytes):]), nil
}
