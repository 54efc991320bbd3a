package simulated

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// GetContainerEvents implements CRI. Events name only the Pod, and are sent when
// something stopped or was removed: the agent knows what it starts.
func (r *runtime) GetContainerEvents(ctx context.Context, _ *runtimeapi.GetEventsRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[runtimeapi.ContainerEventResponse], error) {
	s := &eventStream{ctx: ctx, runtime: r, waiting: map[string]bool{}, wake: make(chan struct{}, 1)}
	r.mu.Lock()
	r.listeners[s] = true
	r.mu.Unlock()
	return s, nil
}

// changed sends an event about a Pod. The caller holds the lock.
func (r *runtime) changed(podUID string) {
	for s := range r.listeners {
		s.put(podUID)
	}
}

// eventStream has the Pods of events that were not received yet, each once.
type eventStream struct {
	grpc.ClientStream // no more than Recv is used

	ctx     context.Context
	runtime *runtime
	wake    chan struct{} // capacity 1

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

func (s *eventStream) leave() {
	s.runtime.mu.Lock()
	defer s.runtime.mu.Unlock()
	delete(s.runtime.listeners, s)
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
