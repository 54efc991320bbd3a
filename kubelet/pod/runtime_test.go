package pod

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/cri/remote"
	"flyball.dev/kubelet/pod/plan"
	"flyball.dev/kubelet/probes"
	"flyball.dev/kubelet/volumes"
)

// fakeRuntime is a runtime in memory, as the Manager sees one.
type fakeRuntime struct {
	runtimeapi.RuntimeServiceClient // the calls that the Manager does not make

	mu      sync.Mutex
	pods    map[types.UID]*cri.Pod
	owner   map[string]types.UID // of sandboxes and containers
	ids     int
	changed func(types.UID)
	starts  int
	// obstinate containers ignore SIGTERM and keep StopContainer waiting.
	obstinate bool
	hooks     []string
	// graces are the timeouts of the calls of StopContainer, in seconds.
	graces []int64
	// hung lets the next question time out.
	hung bool
	// refusal is why no sandbox can be made, networkError why it has no network.
	refusal, networkError error
	// noResize is why no container can be resized.
	noResize error
}

func newFakeRuntime() *fakeRuntime {
	return &fakeRuntime{pods: map[types.UID]*cri.Pod{}, owner: map[string]types.UID{}}
}

func (f *fakeRuntime) Observe(_ context.Context, uid types.UID) (cri.Pod, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hung {
		f.hung = false
		return cri.Pod{}, fmt.Errorf("listing: %w", status.Error(codes.DeadlineExceeded, "too late"))
	}
	p := cri.Pod{UID: uid}
	if have := f.pods[uid]; have != nil {
		p.Sandboxes = append(p.Sandboxes, have.Sandboxes...)
		p.Containers = append(p.Containers, have.Containers...)
	}
	return p, nil
}

func (f *fakeRuntime) Watch(ctx context.Context, changed func(types.UID)) {
	f.mu.Lock()
	f.changed = changed
	for uid := range f.pods {
		changed(uid)
	}
	f.mu.Unlock()
	<-ctx.Done()
}

// change does something to a Pod and notifies the Manager.
func (f *fakeRuntime) change(uid types.UID, do func(*cri.Pod)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pods[uid]
	if p == nil {
		p = &cri.Pod{UID: uid}
		f.pods[uid] = p
	}
	do(p)
	if len(p.Sandboxes)+len(p.Containers) == 0 {
		delete(f.pods, uid)
	}
	if f.changed != nil {
		f.changed(uid)
	}
}

func (f *fakeRuntime) id(uid types.UID) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ids++
	id := "id" + strconv.Itoa(f.ids)
	f.owner[id] = uid
	return id
}

func (f *fakeRuntime) ownerOf(id string) (types.UID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	uid, ok := f.owner[id]
	if !ok {
		return "", status.Error(codes.NotFound, "no "+id)
	}
	return uid, nil
}

func (f *fakeRuntime) RunPodSandbox(_ context.Context, in *runtimeapi.RunPodSandboxRequest, _ ...grpc.CallOption) (*runtimeapi.RunPodSandboxResponse, error) {
	f.mu.Lock()
	refusal := f.refusal
	f.mu.Unlock()
	if refusal != nil {
		return nil, refusal
	}
	uid := types.UID(in.Config.Metadata.Uid)
	id := f.id(uid)
	f.change(uid, func(p *cri.Pod) {
		p.Sandboxes = append([]cri.Sandbox{{
			ID: id, Attempt: in.Config.Metadata.Attempt, Ready: true, IPs: []string{"10.0.0.9"}, CreatedAt: time.Now(),
			Handler: in.RuntimeHandler,
		}}, p.Sandboxes...)
	})
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

func (f *fakeRuntime) StopPodSandbox(_ context.Context, in *runtimeapi.StopPodSandboxRequest, _ ...grpc.CallOption) (*runtimeapi.StopPodSandboxResponse, error) {
	uid, err := f.ownerOf(in.PodSandboxId)
	if err != nil {
		return nil, err
	}
	f.change(uid, func(p *cri.Pod) {
		for i := range p.Sandboxes {
			p.Sandboxes[i].Ready = p.Sandboxes[i].Ready && p.Sandboxes[i].ID != in.PodSandboxId
		}
	})
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

func (f *fakeRuntime) RemovePodSandbox(_ context.Context, in *runtimeapi.RemovePodSandboxRequest, _ ...grpc.CallOption) (*runtimeapi.RemovePodSandboxResponse, error) {
	uid, err := f.ownerOf(in.PodSandboxId)
	if err != nil {
		return nil, err
	}
	f.change(uid, func(p *cri.Pod) { p.Sandboxes, p.Containers = nil, nil })
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

func (f *fakeRuntime) CreateContainer(_ context.Context, in *runtimeapi.CreateContainerRequest, _ ...grpc.CallOption) (*runtimeapi.CreateContainerResponse, error) {
	uid := types.UID(in.SandboxConfig.Metadata.Uid)
	id := f.id(uid)
	has := remote.ResourcesOf(in.Config.GetLinux().GetResources())
	f.change(uid, func(p *cri.Pod) {
		p.Containers = append([]cri.Container{{
			ID: id, Name: in.Config.Metadata.Name, SandboxID: in.PodSandboxId, Attempt: in.Config.Metadata.Attempt,
			State: cri.Created, Annotations: in.Config.Annotations, Labels: in.Config.Labels, CreatedAt: time.Now(),
			Resources: &has,
		}}, p.Containers...)
	})
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

func (f *fakeRuntime) StartContainer(_ context.Context, in *runtimeapi.StartContainerRequest, _ ...grpc.CallOption) (*runtimeapi.StartContainerResponse, error) {
	f.set(in.ContainerId, func(c *cri.Container) { c.State, c.StartedAt = cri.Running, time.Now() })
	f.mu.Lock()
	defer f.mu.Unlock()
	f.starts++
	return &runtimeapi.StartContainerResponse{}, nil
}

func (f *fakeRuntime) set(id string, do func(*cri.Container)) {
	uid, err := f.ownerOf(id)
	if err != nil {
		return
	}
	f.change(uid, func(p *cri.Pod) {
		for i := range p.Containers {
			if p.Containers[i].ID == id {
				do(&p.Containers[i])
			}
		}
	})
}

// exit ends all containers of a Pod with a code.
func (f *fakeRuntime) exit(uid types.UID, code int32) {
	f.change(uid, func(p *cri.Pod) {
		for i := range p.Containers {
			if p.Containers[i].Alive() {
				p.Containers[i].State, p.Containers[i].ExitCode, p.Containers[i].FinishedAt = cri.Exited, code, time.Now()
			}
		}
	})
}

func (f *fakeRuntime) StopContainer(ctx context.Context, in *runtimeapi.StopContainerRequest, _ ...grpc.CallOption) (*runtimeapi.StopContainerResponse, error) {
	f.mu.Lock()
	obstinate := f.obstinate
	f.graces = append(f.graces, in.Timeout)
	f.mu.Unlock()
	if obstinate && in.Timeout > int64(plan.MinGrace/time.Second) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	f.set(in.ContainerId, func(c *cri.Container) { c.State, c.ExitCode, c.FinishedAt = cri.Exited, 143, time.Now() })
	return &runtimeapi.StopContainerResponse{}, nil
}

func (f *fakeRuntime) RemoveContainer(_ context.Context, in *runtimeapi.RemoveContainerRequest, _ ...grpc.CallOption) (*runtimeapi.RemoveContainerResponse, error) {
	uid, err := f.ownerOf(in.ContainerId)
	if err != nil {
		return nil, err
	}
	f.change(uid, func(p *cri.Pod) {
		var kept []cri.Container
		for _, c := range p.Containers {
			if c.ID != in.ContainerId {
				kept = append(kept, c)
			}
		}
		p.Containers = kept
	})
	return &runtimeapi.RemoveContainerResponse{}, nil
}

func (f *fakeRuntime) ExecSync(_ context.Context, in *runtimeapi.ExecSyncRequest, _ ...grpc.CallOption) (*runtimeapi.ExecSyncResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hooks = append(f.hooks, strings.Join(in.Cmd, " "))
	return &runtimeapi.ExecSyncResponse{}, nil
}

func (f *fakeRuntime) startCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.starts
}

func (f *fakeRuntime) empty() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.pods) == 0
}

// fakeNode stands for volumes, images, cgroups and probes.
type fakeNode struct {
	mu      sync.Mutex
	mounted map[types.UID]bool
	cgroups map[types.UID]bool
	// pull, if set, is what a pull waits for.
	pull chan struct{}
	// noVolume, if set, is why no image of a volume can be pulled.
	noVolume error
	// sizes are the changes that were made to the cgroups of Pods.
	sizes []string
	// noMount has the errors of the next calls of Mount.
	noMount []error
	// slow mounts last a little longer than the agent that they were begun by.
	slow, begun, ended atomic.Bool
}

func newFakeNode() *fakeNode {
	return &fakeNode{mounted: map[types.UID]bool{}, cgroups: map[types.UID]bool{}}
}

func (n *fakeNode) Mount(ctx context.Context, pod *v1.Pod) (map[string]volumes.Mounted, error) {
	if n.slow.Load() {
		n.begun.Store(true)
		<-ctx.Done()
		time.Sleep(50 * time.Millisecond)
		n.ended.Store(true)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.noMount) > 0 {
		err := n.noMount[0]
		n.noMount = n.noMount[1:]
		return nil, err
	}
	n.mounted[pod.UID] = true
	mounted := map[string]volumes.Mounted{}
	for _, vol := range pod.Spec.Volumes {
		mounted[vol.Name] = volumes.Mounted{Image: vol.Image != nil, ReadOnly: true}
	}
	return mounted, nil
}

func (n *fakeNode) Prepare(context.Context, *v1.Pod, map[string]volumes.Mounted, volumes.FilesSpec) (volumes.Files, error) {
	return volumes.Files{}, nil
}

func (n *fakeNode) Unmount(_ context.Context, uid types.UID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.mounted, uid)
	return nil
}

func (n *fakeNode) Ensure(ctx context.Context, _ *v1.Pod, _ *v1.Container, _ *runtimeapi.PodSandboxConfig, _ func(eventtype, reason, msg string)) (string, error) {
	if n.pull != nil {
		select {
		case <-n.pull:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return "sha256:1", nil
}

func (n *fakeNode) EnsureVolume(_ context.Context, _ *v1.Pod, vol *v1.ImageVolumeSource, _ *runtimeapi.PodSandboxConfig, _ func(eventtype, reason, msg string)) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.noVolume != nil {
		return "", n.noVolume
	}
	return "sha256:" + vol.Reference, nil
}

func (n *fakeNode) User(context.Context, string) (*int64, string, error) { return nil, "", nil }

func (n *fakeNode) EnsurePod(pod *v1.Pod) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cgroups[pod.UID] = true
	return "/kubepods/pod" + string(pod.UID), nil
}

func (n *fakeNode) GrowPod(pod *v1.Pod) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sizes = append(n.sizes, "grow to "+pod.Spec.Containers[0].Resources.Requests.Cpu().String())
	return nil
}

func (n *fakeNode) PodMemory(*v1.Pod) (usage, limit int64, lower bool, err error) {
	return 0, 0, false, nil
}

// Resize implements Runtime.
func (f *fakeRuntime) Resize(_ context.Context, _ types.UID, id string, r *runtimeapi.LinuxContainerResources) error {
	f.mu.Lock()
	refusal := f.noResize
	f.mu.Unlock()
	if refusal != nil {
		return refusal
	}
	has := remote.ResourcesOf(r)
	f.set(id, func(c *cri.Container) { c.Resources = &has })
	return nil
}

// MemoryUsage implements Runtime.
func (f *fakeRuntime) MemoryUsage(context.Context, string) (uint64, error) { return 1 << 20, nil }

func (n *fakeNode) RemovePod(uid types.UID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cgroups, uid)
	return nil
}

func (n *fakeNode) clean() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.mounted)+len(n.cgroups) == 0
}

func (n *fakeNode) Set(*v1.Pod, []probes.Target)            {}
func (n *fakeNode) Changes() <-chan types.UID               { return nil }
func (n *fakeNode) Results(types.UID) map[string]cri.Probed { return nil }
func (n *fakeNode) Remove(types.UID)                        {}

func noServices(context.Context, string) ([]*v1.Service, error) { return nil, nil }
