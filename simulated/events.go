package simulated

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// GetContainerEvents implements CRI. Events name the Pod only, and tell of what
// stopped or was removed: of what it starts itself the agent knows.
func (r *runtime) GetContainerEvents(ctx context.Context, _ *runtimeapi.GetEventsRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[runtimeapi.ContainerEventResponse], error) {
	s := &eventStream{ctx: ctx, waiting: map[string]bool{}, wake: make(chan struct{}, 1)}
	s.leave = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.listeners, s)
	}
	r.mu.Lock()
	r.listeners[s] = true
	r.mu.Unlock()
	return s, nil
}

// changed tells the agent to look at a Pod again. The caller holds the lock.
func (r *runtime) changed(podUID string) {
	for s := range r.listeners {
		s.put(podUID)
	}
}

// eventStream keeps the Pods of which the agent has not heard yet, each once.
type eventStream struct {
	grpc.ClientStream // no more than Recv is used

	ctx   context.Context
	leave func()
	wake  chan struct{} // capacity 1

	mu      sync.Mutex
	waiting map[string]bool
}

func (s *eventStream) put(podUID string) {
	s.mu.Lock()
	s.waiting[podUID] = true
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *eventStream) take() (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for uid := range s.waiting {
		delete(s.waiting, uid)
		return uid, true
	}
	return "", false
}

// Recv implements the stream.
func (s *eventStream) Recv() (*runtimeapi.ContainerEventResponse, error) {
	for {
		if uid, ok := s.take(); ok {
			return &runtimeapi.ContainerEventResponse{
				CreatedAt: time.Now().UnixNano(), ContainerEventType: runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT,
				PodSandboxStatus: &runtimeapi.PodSandboxStatus{Metadata: &runtimeapi.PodSandboxMetadata{Uid: uid}},
			}, nil
		}
		select {
		case <-s.wake:
		case <-s.ctx.Done():
			s.leave()
			return nil, status.FromContextError(s.ctx.Err()).Err()
		}
	}
}
