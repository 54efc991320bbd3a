package simulated

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/cri"
)

type container struct {
	id      string
	sandbox *sandbox
	config  *runtimeapi.ContainerConfig
	does    behaviour

	state runtimeapi.ContainerState
	// stopped is when StopContainer was called first, or zero.
	created, started, stopped, finished time.Time

	end    end
	logged *string     // the log in its file; nil: there is no file
	timer  *time.Timer // calls expired
	// podDeleted ends when deletePod is called, ended is closed when the container has ended.
	podDeleted context.Context
	deletePod  context.CancelFunc
	ended      chan struct{}
}

// end is the result of a container.
type end struct {
	code            int32
	reason, message string
}

// killed is the result of SIGKILL.
var killed = end{code: 137, reason: "Error"}

func (c *container) podUID() string { return c.sandbox.podUID() }
func (c *container) name() string   { return c.config.GetMetadata().GetName() }

// ownEnd is the result if it is not stopped.
func (c *container) ownEnd() end {
	reason := "Completed"
	if c.does.exitCode != 0 {
		reason = "Error"
	}
	return end{c.does.exitCode, cmp.Or(c.does.exitReason, reason), c.does.message}
}

// CreateContainer implements CRI. It fails if an annotation is invalid, as it does with an invalid
// configuration.
func (r *runtime) CreateContainer(_ context.Context, in *runtimeapi.CreateContainerRequest, _ ...grpc.CallOption) (*runtimeapi.CreateContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[in.PodSandboxId]
	if s == nil || !s.ready {
		return nil, notFound("sandbox", in.PodSandboxId)
	}
	pod := r.pods.current(s.config.GetMetadata())
	if pod == nil {
		return nil, status.Error(codes.NotFound, "creating a container: its Pod does not exist")
	}
	does, err := behaviourOf(pod, in.Config.GetMetadata().GetName())
	if err != nil {
		return nil, &containers.Error{Reason: containers.ReasonCreateContainerConfigError, Message: err.Error(), Err: err}
	}
	c := &container{
		id: newID(), sandbox: s, config: in.Config, does: does,
		state: runtimeapi.ContainerState_CONTAINER_CREATED, created: time.Now(), ended: make(chan struct{}),
	}
	c.timer = time.AfterFunc(time.Hour, func() { r.expired(c) })
	c.timer.Stop()
	c.podDeleted, c.deletePod = context.WithCancel(context.Background())
	if pod.DeletionTimestamp != nil {
		c.deletePod()
	}
	r.containers[c.id] = c
	return &runtimeapi.CreateContainerResponse{ContainerId: c.id}, nil
}

func (r *runtime) StartContainer(ctx context.Context, in *runtimeapi.StartContainerRequest, _ ...grpc.CallOption) (*runtimeapi.StartContainerResponse, error) {
	c, does, err := r.container(in.ContainerId)
	if err != nil {
		return nil, err
	}
	if does.startAfter > 0 {
		select {
		case <-time.After(does.startAfter):
		case <-c.podDeleted.Done():
			return nil, status.Error(codes.Canceled, "the Pod was deleted while the container started")
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case c.state != runtimeapi.ContainerState_CONTAINER_CREATED:
		return nil, status.Errorf(codes.FailedPrecondition, "starting container %s: it was started before", c.id)
	case c.does.startError != "":
		r.exit(c, end{code: 128, reason: "StartError", message: c.does.startError})
		return nil, errors.New(c.does.startError)
	}
	c.state, c.started = runtimeapi.ContainerState_CONTAINER_RUNNING, time.Now()
	r.schedule(c)
	return &runtimeapi.StartContainerResponse{}, nil
}

// schedule sets the timer to the end of a running container. The caller holds the lock.
func (r *runtime) schedule(c *container) {
	var at time.Time
	if c.does.exits {
		at = c.started.Add(c.does.exitAfter)
	}
	if !c.stopped.IsZero() && !c.does.obstinate {
		if by := c.stopped.Add(c.does.stopAfter); at.IsZero() || by.Before(at) {
			at = by
		}
	}
	if at.IsZero() {
		c.timer.Stop()
		return
	}
	c.timer.Reset(max(0, time.Until(at)))
}

func (r *runtime) expired(c *container) {
	r.mu.Lock()
	defer r.mu.Unlock()
	own := c.ownEnd()
	if !c.stopped.IsZero() && (!c.does.exits || c.stopped.Before(c.started.Add(c.does.exitAfter))) {
		own = end{reason: "Completed", message: c.does.message} // it was stopped
	}
	r.exit(c, own)
}

// exit ends a container, unless it has ended. The caller holds the lock.
func (r *runtime) exit(c *container, how end) {
	if c.state == runtimeapi.ContainerState_CONTAINER_EXITED {
		return
	}
	c.timer.Stop()
	c.state, c.finished, c.end = runtimeapi.ContainerState_CONTAINER_EXITED, time.Now(), how
	close(c.ended)
	r.changed(c.podUID())
}

// StopContainer implements CRI: it stops the container, and kills it after the timeout in seconds.
func (r *runtime) StopContainer(ctx context.Context, in *runtimeapi.StopContainerRequest, _ ...grpc.CallOption) (*runtimeapi.StopContainerResponse, error) {
	c, _, err := r.container(in.ContainerId)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	switch {
	case c.state != runtimeapi.ContainerState_CONTAINER_RUNNING:
		r.exit(c, killed)
	case c.does.stopAfter == 0 && !c.does.obstinate: // the common case needs no timer
		r.exit(c, end{reason: "Completed", message: c.does.message})
	case c.stopped.IsZero():
		c.stopped = time.Now()
		r.schedule(c)
	}
	r.mu.Unlock()
	timeout := time.NewTimer(time.Duration(in.Timeout) * time.Second)
	defer timeout.Stop()
	select {
	case <-c.ended:
	case <-timeout.C:
		r.mu.Lock()
		r.exit(c, killed)
		r.mu.Unlock()
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return &runtimeapi.StopContainerResponse{}, nil
}

func (r *runtime) RemoveContainer(_ context.Context, in *runtimeapi.RemoveContainerRequest, _ ...grpc.CallOption) (*runtimeapi.RemoveContainerResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.containers[in.ContainerId]; c != nil {
		r.exit(c, killed)
		r.forget(c)
		r.changed(c.podUID())
	}
	return &runtimeapi.RemoveContainerResponse{}, nil
}

// forget is called with the lock held.
func (r *runtime) forget(c *container) {
	if c.logged != nil {
		_ = os.Remove(r.logPath(c))
	}
	delete(r.containers, c.id)
}

// container returns a container, and what it does at present.
func (r *runtime) container(id string) (*container, behaviour, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[id]
	if c == nil {
		return nil, behaviour{}, notFound("container", id)
	}
	return c, c.does, nil
}

// podChanged applies the annotations of a Pod. Creating the next container reports errors in them.
func (r *runtime) podChanged(pod *v1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.podUID() != string(pod.UID) {
			continue
		}
		if pod.DeletionTimestamp != nil {
			c.deletePod()
		}
		if does, err := behaviourOf(pod, c.name()); err == nil {
			c.does = does
			if c.state == runtimeapi.ContainerState_CONTAINER_RUNNING {
				r.schedule(c)
			}
		}
	}
}

func (r *runtime) UpdateContainerResources(_ context.Context, in *runtimeapi.UpdateContainerResourcesRequest, _ ...grpc.CallOption) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[in.ContainerId]
	if c == nil {
		return nil, notFound("container", in.ContainerId)
	}
	if c.config.Linux != nil {
		c.config.Linux.Resources = in.Linux
	}
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}

func (r *runtime) ListContainers(_ context.Context, in *runtimeapi.ListContainersRequest, _ ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	f := in.GetFilter()
	selector := labels.SelectorFromSet(f.GetLabelSelector())
	r.mu.Lock()
	defer r.mu.Unlock()
	list := &runtimeapi.ListContainersResponse{}
	for _, c := range r.containers {
		if f.GetId() != "" && f.Id != c.id || f.GetPodSandboxId() != "" && f.PodSandboxId != c.sandbox.id ||
			f.GetState() != nil && f.State.State != c.state || !selector.Matches(labels.Set(c.config.Labels)) {
			continue
		}
		list.Containers = append(list.Containers, &runtimeapi.Container{
			Id: c.id, PodSandboxId: c.sandbox.id, Metadata: c.config.Metadata, Image: c.config.Image,
			ImageRef: digestOf(c.config.GetImage()), State: c.state, CreatedAt: nanos(c.created),
			Labels: c.config.Labels, Annotations: c.config.Annotations,
		})
	}
	slices.SortFunc(list.Containers, func(a, b *runtimeapi.Container) int { return cmp.Compare(a.CreatedAt, b.CreatedAt) })
	return list, nil
}

// ContainerStatus implements CRI. It writes the log file if the request is verbose, or if the agent
// will read the log as the termination message.
func (r *runtime) ContainerStatus(_ context.Context, in *runtimeapi.ContainerStatusRequest, _ ...grpc.CallOption) (*runtimeapi.ContainerStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[in.ContainerId]
	if c == nil {
		return nil, notFound("container", in.ContainerId)
	}
	st := &runtimeapi.ContainerStatus{
		Id: c.id, Metadata: c.config.Metadata, State: c.state,
		CreatedAt: nanos(c.created), StartedAt: nanos(c.started), FinishedAt: nanos(c.finished),
		ExitCode: c.end.code, Reason: c.end.reason, Message: c.end.message,
		Image:    &runtimeapi.ImageSpec{Image: nameOf(c.config.GetImage())},
		ImageRef: digestOf(c.config.GetImage()), Labels: c.config.Labels, Annotations: c.config.Annotations,
		LogPath:   r.logPath(c),
		Resources: &runtimeapi.ContainerResources{Linux: c.config.GetLinux().GetResources()},
	}
	fallback := st.Annotations[cri.AnnotationMessagePolicy] == string(v1.TerminationMessageFallbackToLogsOnError)
	if in.Verbose || st.ExitCode != 0 && fallback {
		if err := r.writeLog(c); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	return &runtimeapi.ContainerStatusResponse{Status: st}, nil
}

// ContainerStats implements CRI. Without processes no memory is used.
func (r *runtime) ContainerStats(_ context.Context, in *runtimeapi.ContainerStatsRequest, _ ...grpc.CallOption) (*runtimeapi.ContainerStatsResponse, error) {
	if _, _, err := r.container(in.ContainerId); err != nil {
		return nil, err
	}
	none := &runtimeapi.MemoryUsage{Timestamp: time.Now().UnixNano(), UsageBytes: &runtimeapi.UInt64Value{}}
	return &runtimeapi.ContainerStatsResponse{Stats: &runtimeapi.ContainerStats{Memory: none}}, nil
}
