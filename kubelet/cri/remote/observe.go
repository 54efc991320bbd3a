package remote

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/cri"
)

// Observe reads the sandboxes and containers of one Pod.
func (c *Client) Observe(ctx context.Context, uid types.UID) (cri.Pod, error) {
	selector := map[string]string{cri.LabelPodUID: string(uid)}
	var sandboxes *runtimeapi.ListPodSandboxResponse
	var containers *runtimeapi.ListContainersResponse
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		sandboxes, err = c.Runtime.ListPodSandbox(gctx, &runtimeapi.ListPodSandboxRequest{
			Filter: &runtimeapi.PodSandboxFilter{LabelSelector: selector},
		})
		return err
	})
	g.Go(func() (err error) {
		containers, err = c.Runtime.ListContainers(gctx, &runtimeapi.ListContainersRequest{
			Filter: &runtimeapi.ContainerFilter{LabelSelector: selector},
		})
		return err
	})
	if err := g.Wait(); err != nil {
		return cri.Pod{}, fmt.Errorf("listing sandboxes and containers of Pod %s: %w", uid, err)
	}

	p := cri.Pod{UID: uid}
	for _, s := range sandboxes.Items {
		sb, err := c.sandbox(ctx, s)
		if IsNotFound(err) {
			continue
		}
		if err != nil {
			return cri.Pod{}, fmt.Errorf("reading sandbox %s: %w", s.Id, err)
		}
		p.Sandboxes = append(p.Sandboxes, sb)
	}
	for _, s := range containers.Containers {
		cn, err := c.container(ctx, s)
		if IsNotFound(err) {
			continue
		}
		if err != nil {
			return cri.Pod{}, fmt.Errorf("reading container %s: %w", s.Id, err)
		}
		p.Containers = append(p.Containers, cn)
	}
	c.remember(p)
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
func (c *Client) sandbox(ctx context.Context, s *runtimeapi.PodSandbox) (cri.Sandbox, error) {
	ready := s.State == runtimeapi.PodSandboxState_SANDBOX_READY
	c.mu.Lock()
	known, ok := c.sandboxes[s.Id]
	c.mu.Unlock()
	if ok && (known.Ready || !ready) {
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
	if len(sb.IPs) > 0 || sb.HostNetwork || !ready {
		c.mu.Lock()
		c.sandboxes[s.Id] = sb
		c.mu.Unlock()
	}
	return sb, nil
}

// container adds the details. It reads them once per state: only the resources change while the
// state stays, see Resize.
func (c *Client) container(ctx context.Context, s *runtimeapi.Container) (cri.Container, error) {
	state := stateOf(s.State)
	c.mu.Lock()
	known, ok := c.containers[s.Id]
	c.mu.Unlock()
	if ok && known.State == state {
		return known, nil
	}
	resp, err := c.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: s.Id})
	if err != nil {
		return cri.Container{}, err
	}
	cn := convert(resp.GetStatus(), s.PodSandboxId)
	if cn.State == cri.Exited {
		cn.Message = withTerminationMessage(ctx, resp.GetStatus(), cn)
	}
	c.mu.Lock()
	c.containers[s.Id] = cn
	c.mu.Unlock()
	return cn, nil
}

func convert(st *runtimeapi.ContainerStatus, sandboxID string) cri.Container {
	cn := cri.Container{
		ID: st.GetId(), Name: st.GetLabels()[cri.LabelContainerName], SandboxID: sandboxID,
		Attempt: st.GetMetadata().GetAttempt(), State: stateOf(st.GetState()),
		CreatedAt: nanos(st.GetCreatedAt()), StartedAt: nanos(st.GetStartedAt()), FinishedAt: nanos(st.GetFinishedAt()),
		ExitCode: st.GetExitCode(), Reason: st.GetReason(), Message: st.GetMessage(),
		Image: st.GetImage().GetImage(), ImageID: st.GetImageRef(), LogPath: st.GetLogPath(),
		Labels: st.GetLabels(), Annotations: st.GetAnnotations(),
	}
	if cn.Name == "" {
		cn.Name = st.GetMetadata().GetName()
	}
	if u := st.GetUser().GetLinux(); u != nil {
		cn.User = &v1.LinuxContainerUser{UID: u.Uid, GID: u.Gid, SupplementalGroups: u.SupplementalGroups}
	}
	if r := st.GetResources().GetLinux(); r != nil {
		resources := ResourcesOf(r)
		cn.Resources = &resources
	}
	return cn
}

// remember drops the details of sandboxes and containers that the runtime does not list any more.
func (c *Client) remember(p cri.Pod) {
	ids := make([]string, 0, len(p.Sandboxes)+len(p.Containers))
	for _, s := range p.Sandboxes {
		ids = append(ids, s.ID)
	}
	for _, cn := range p.Containers {
		ids = append(ids, cn.ID)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range c.known[p.UID] {
		if !slices.Contains(ids, id) {
			delete(c.sandboxes, id)
			delete(c.containers, id)
		}
	}
	c.known[p.UID] = ids
	if len(ids) == 0 {
		delete(c.known, p.UID)
	}
}
