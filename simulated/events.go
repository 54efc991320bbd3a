package simulated

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/util/workqueue"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// GetContainerEvents implements CRI. Events name only the Pod, and are sent when something stopped
// or was removed: the agent knows what it starts.
func (r *runtime) GetContainerEvents(ctx context.Context, _ *runtimeapi.GetEventsRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[runtimeapi.ContainerEventResponse], error) {
	s := &eventStream{ctx: ctx, changed: workqueue.NewTyped[string]()}
	r.mu.Lock()
	r.listeners[s] = true
	r.mu.Unlock()
	context.AfterFunc(ctx, func() {
		r.mu.Lock()
		delete(r.listeners, s)
		r.mu.Unlock()
		s.changed.ShutDown()
	})
	return s, nil
}

// changed sends an event about a Pod. The caller holds the lock.
func (r *runtime) changed(podUID string) {
	for s := range r.listeners {
		s.changed.Add(podUID)
	}
}

type eventStream struct {
	grpc.ClientStream // no more than Recv is used

	ctx context.Context
	// changed has the UIDs of the Pods of events that were not received yet, each once.
	changed workqueue.TypedInterface[string]
}

func (s *eventStream) Recv() (*runtimeapi.ContainerEventResponse, error) {
	uid, shutdown := s.changed.Get()
	if shutdown {
		return nil, status.FromContextError(s.ctx.Err()).Err()
	}
	s.changed.Done(uid)
	return &runtimeapi.ContainerEventResponse{
		CreatedAt: time.Now().UnixNano(), ContainerEventType: runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT,
		PodSandboxStatus: &runtimeapi.PodSandboxStatus{Metadata: &runtimeapi.PodSandboxMetadata{Uid: uid}},
	}, nil
}
