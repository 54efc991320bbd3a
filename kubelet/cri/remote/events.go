package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"flyball.dev/kubelet/cri"
)

const (
	relistEvery    = 30 * time.Second // the safety net behind an event stream
	relistPolling  = time.Second      // without one; upstream's interval
	reconnectFirst = 100 * time.Millisecond
	reconnectMax   = 5 * time.Second
	// A runtime that has no events, such as CRI-O by default, is asked for them again
	// after at most noEventsMax: they come with another configuration of it.
	noEventsMax = time.Minute
)

// Watch calls changed for each Pod of which a sandbox or container stopped or was
// removed, until ctx ends. changed must not block. It may be called for more Pods
// than changed. Pods that the runtime knew before are reported once at the start.
//
// Events of what was created or started are left out: who creates and starts hears
// of it by the answer to the call. They are most of what a Pod's start would be
// observed for. Should somebody else have done it, the next relist finds out.
//
// Whatever becomes of the events, relists go on, one at a time: they are all that is
// known of a runtime without events, and come every second then.
func (c *Client) Watch(ctx context.Context, changed func(types.UID)) {
	w := watch{client: c, changed: changed, due: make(chan struct{}, 1)}
	var relists sync.WaitGroup
	relists.Go(func() { w.relist(ctx) })
	defer relists.Wait()
	w.follow(ctx)
}

// watch is one run of Watch.
type watch struct {
	client  *Client
	changed func(types.UID)
	// due asks for a relist now. Its capacity is one: a relist that has not begun is for all who
	// asked.
	due chan struct{}
	// streaming says that an event stream is open, as far as we know.
	streaming atomic.Bool
}

func (w *watch) relistNow() {
	select {
	case w.due <- struct{}{}:
	default:
	}
}

// relist relists whenever that is due, until ctx ends.
func (w *watch) relist(ctx context.Context) {
	for ctx.Err() == nil {
		if err := w.client.Relist(ctx, w.changed); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).V(1).Info("Relisting failed, it is repeated", "err", err)
		}
		every := relistPolling
		if w.streaming.Load() {
			every = relistEvery
		}
		select {
		case <-ctx.Done():
		case <-w.due:
		case <-time.After(every):
		}
	}
}

// follow keeps an event stream open until ctx ends.
func (w *watch) follow(ctx context.Context) {
	logger, wait, said := klog.FromContext(ctx), reconnectFirst, false
	for {
		begun := time.Now()
		err := w.stream(ctx)
		if ctx.Err() != nil {
			return
		}
		lasted := time.Since(begun) > reconnectMax
		if lasted {
			wait, said = reconnectFirst, false
		}
		longest := reconnectMax
		if !lasted && hasNoEvents(err) {
			longest = noEventsMax
			if !said {
				logger.Info("The container runtime sends no events, it is listed instead", "every", relistPolling)
			}
			said = true
		} else {
			logger.V(1).Info("The event stream of the container runtime ended, connecting again", "err", err, "wait", wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, longest)
	}
}

// hasNoEvents says whether a stream that ended at once ended because the runtime has
// no events: containerd's versions before them do not know the call, and CRI-O answers
// it with nothing unless its configuration says enable_pod_events.
func hasNoEvents(err error) bool {
	return errors.Is(err, io.EOF) || status.Code(err) == codes.Unimplemented
}

// stream follows one event stream until it breaks. There is a relist after the
// subscription, and one after its end, so that nothing falls between two streams.
func (w *watch) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := w.client.Runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("subscribing to container events: %w", err)
	}
	w.streaming.Store(true)
	w.relistNow()
	defer w.relistNow()
	defer w.streaming.Store(false)
	for {
		e, err := events.Recv()
		if err != nil {
			return fmt.Errorf("reading container events: %w", err)
		}
		switch e.ContainerEventType {
		case runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT:
			continue
		}
		switch uid := podOf(e); {
		case uid == "":
			// The sandbox is gone already, and the Pod's name with it.
			w.relistNow()
		case w.client.owns(uid, e):
			w.changed(uid)
		}
	}
}

func podOf(e *runtimeapi.ContainerEventResponse) types.UID {
	if uid := e.GetPodSandboxStatus().GetMetadata().GetUid(); uid != "" {
		return types.UID(uid)
	}
	for _, s := range e.GetContainersStatuses() {
		if uid := s.GetLabels()[cri.LabelPodUID]; uid != "" {
			return types.UID(uid)
		}
	}
	return ""
}

// owns says whether what an event is about is ours.
func (c *Client) owns(uid types.UID, e *runtimeapi.ContainerEventResponse) bool {
	if st := e.GetPodSandboxStatus(); st != nil {
		return c.Ours(uid, st.Labels)
	}
	return slices.ContainsFunc(e.GetContainersStatuses(), func(st *runtimeapi.ContainerStatus) bool {
		return c.Ours(uid, st.Labels)
	})
}

// Ours says whether a sandbox or container with these labels, of the Pod uid, is ours. Those that
// were made before there were labels have none: they are ours if the Pod has been observed, since
// only the Pods of this node and what is left of them are.
func (c *Client) Ours(uid types.UID, l map[string]string) bool {
	if labels.SelectorFromSet(c.Owned).Matches(labels.Set(l)) {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.known[uid]) > 0
}

// Relist reads all in the runtime that is ours and calls changed for the Pods that
// look different from last time.
func (c *Client) Relist(ctx context.Context, changed func(types.UID)) error {
	defer c.metrics.relisting()()
	sandboxes, err := c.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("listing sandboxes: %w", err)
	}
	containers, err := c.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("listing containers: %w", err)
	}
	facts := map[types.UID][]string{}
	for _, s := range sandboxes.Items {
		if uid := types.UID(s.GetMetadata().GetUid()); c.Ours(uid, s.Labels) {
			facts[uid] = append(facts[uid], s.Id+s.State.String())
		}
	}
	for _, s := range containers.Containers {
		if uid := types.UID(s.Labels[cri.LabelPodUID]); c.Ours(uid, s.Labels) {
			facts[uid] = append(facts[uid], s.Id+s.State.String())
		}
	}
	delete(facts, "") // not made by a kubelet

	now := make(map[types.UID]string, len(facts))
	for uid, f := range facts {
		slices.Sort(f)
		now[uid] = strings.Join(f, " ")
	}
	c.mu.Lock()
	before := c.seen
	c.seen, c.listed = now, time.Now()
	c.mu.Unlock()
	for uid := range maps.Keys(before) {
		if _, ok := now[uid]; !ok {
			changed(uid)
		}
	}
	for uid, f := range now {
		if before[uid] != f {
			changed(uid)
		}
	}
	return nil
}
