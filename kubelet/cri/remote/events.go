package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/samber/lo"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"flyball.dev/internal/trigger"
	"flyball.dev/kubelet/cri"
)

const (
	relistEvery    = 30 * time.Second // the safety net behind an event stream
	relistPolling  = time.Second      // without one; upstream's interval
	reconnectFirst = 100 * time.Millisecond
	reconnectMax   = 5 * time.Second
	// noEventsMax bounds the time between attempts to subscribe at a runtime without events, such
	// as CRI-O by default: another configuration of it has some.
	noEventsMax = time.Minute
)

// Watch calls changed for each Pod with a sandbox or container that stopped or was removed, until
// ctx ends. changed must not block. Watch may call it for Pods that have not changed, and calls it
// once at the start for each Pod that the runtime has.
//
// Watch drops the events of what was created or started: the caller that creates and starts has the
// answer to its call. Otherwise each start of a Pod would be observed several times. The next
// relist finds what another client has created.
//
// Relists run besides the events, one at a time; every second while there is no event stream.
func (c *Client) Watch(ctx context.Context, changed func(types.UID)) {
	w := watch{client: c, changed: changed, due: trigger.New()}
	var relists sync.WaitGroup
	relists.Go(func() { w.relist(ctx) })
	defer relists.Wait()
	w.follow(ctx)
}

// watch is one run of Watch.
type watch struct {
	client  *Client
	changed func(types.UID)
	// due requests a relist now. One that has not begun serves all requests.
	due trigger.Trigger
	// streaming is set while an event stream is open.
	streaming atomic.Bool
}

// relist relists periodically and when due, until ctx ends.
func (w *watch) relist(ctx context.Context) {
	for ctx.Err() == nil {
		if err := w.client.Relist(ctx, w.changed); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).V(1).Info("Cannot relist, retrying", "err", err)
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
	logger, wait, logged := klog.FromContext(ctx), reconnectFirst, false
	for {
		begun := time.Now()
		err := w.stream(ctx)
		if ctx.Err() != nil {
			return
		}
		lasted := time.Since(begun) > reconnectMax
		if lasted {
			wait, logged = reconnectFirst, false
		}
		longest := reconnectMax
		if !lasted && hasNoEvents(err) {
			longest = noEventsMax
			if !logged {
				logger.Info("The container runtime sends no events, it is listed instead", "every", relistPolling)
			}
			logged = true
		} else {
			logger.V(1).Info("The event stream of the container runtime ended, reconnecting", "err", err, "wait", wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, longest)
	}
}

// hasNoEvents reports whether a stream that ended at once did so because the runtime has no events:
// older versions of containerd do not implement the call, and CRI-O closes the stream unless its
// configuration has enable_pod_events.
func hasNoEvents(err error) bool {
	return errors.Is(err, io.EOF) || status.Code(err) == codes.Unimplemented
}

// stream reads one event stream until it breaks. It relists after the subscription and at the end,
// so that no change is lost between two streams.
func (w *watch) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := w.client.Runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("subscribing to container events: %w", err)
	}
	w.streaming.Store(true)
	w.due.Set()
	defer w.due.Set()
	defer w.streaming.Store(false)
	for {
		e, err := events.Recv()
		if err != nil {
			return fmt.Errorf("reading container events: %w", err)
		}
		kind, uid := e.ContainerEventType, podOf(e)
		switch {
		case kind == runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT,
			kind == runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT:
		case uid == "":
			// The sandbox was removed, and the Pod's UID with it.
			w.due.Set()
		case w.client.owns(uid, e):
			w.changed(uid)
		}
	}
}

func podOf(e *runtimeapi.ContainerEventResponse) types.UID {
	uid := e.GetPodSandboxStatus().GetMetadata().GetUid()
	for _, s := range e.GetContainersStatuses() {
		uid = cmp.Or(uid, s.GetLabels()[cri.LabelPodUID])
	}
	return types.UID(uid)
}

// owns reports whether an event is about a sandbox or container of ours.
func (c *Client) owns(uid types.UID, e *runtimeapi.ContainerEventResponse) bool {
	if st := e.GetPodSandboxStatus(); st != nil {
		return c.Ours(uid, st.Labels)
	}
	ours := func(st *runtimeapi.ContainerStatus) bool { return c.Ours(uid, st.Labels) }
	return slices.ContainsFunc(e.GetContainersStatuses(), ours)
}

// Ours reports whether a sandbox or container of the Pod uid, with these labels, is ours. Older
// ones have no such labels: they are ours if the Pod has been observed, since only Pods of this
// node are.
func (c *Client) Ours(uid types.UID, l map[string]string) bool {
	if labels.SelectorFromSet(c.Owned).Matches(labels.Set(l)) {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, observed := c.observed[uid]
	return observed
}

// Relist lists all sandboxes and containers of ours and calls changed for the Pods that differ from
// the last relist.
func (c *Client) Relist(ctx context.Context, changed func(types.UID)) error {
	defer c.metrics.relisting()()
	sandboxes, containers, err := c.list(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	now := map[types.UID][]string{}
	add := func(uid, fact string) {
		now[types.UID(uid)] = append(now[types.UID(uid)], fact)
	}
	for _, s := range sandboxes {
		add(s.GetMetadata().GetUid(), s.Id+s.State.String())
	}
	for _, s := range containers {
		add(s.Labels[cri.LabelPodUID], s.Id+s.State.String())
	}
	delete(now, "") // not made by a kubelet
	c.mu.Lock()
	before := c.seen
	c.seen, c.listed = now, time.Now()
	c.mu.Unlock()
	for uid := range sets.KeySet(before).Union(sets.KeySet(now)) {
		if !sets.New(before[uid]...).Equal(sets.New(now[uid]...)) {
			changed(uid)
		}
	}
	return nil
}

// list lists the sandboxes and containers of ours.
func (c *Client) list(
	ctx context.Context, opts ...grpc.CallOption,
) ([]*runtimeapi.PodSandbox, []*runtimeapi.Container, error) {
	sandboxes, containers, err := List(ctx, c.Runtime, nil, opts...)
	sandboxes = lo.Filter(sandboxes, func(s *runtimeapi.PodSandbox, _ int) bool {
		return c.Ours(types.UID(s.GetMetadata().GetUid()), s.Labels)
	})
	containers = lo.Filter(containers, func(s *runtimeapi.Container, _ int) bool {
		return c.Ours(types.UID(s.Labels[cri.LabelPodUID]), s.Labels)
	})
	return sandboxes, containers, err
}

// List lists the sandboxes and containers that have the labels.
func List(
	ctx context.Context, rt runtimeapi.RuntimeServiceClient, having map[string]string, opts ...grpc.CallOption,
) ([]*runtimeapi.PodSandbox, []*runtimeapi.Container, error) {
	var sandboxes *runtimeapi.ListPodSandboxResponse
	var containers *runtimeapi.ListContainersResponse
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		filter := &runtimeapi.PodSandboxFilter{LabelSelector: having}
		sandboxes, err = rt.ListPodSandbox(gctx, &runtimeapi.ListPodSandboxRequest{Filter: filter}, opts...)
		return err
	})
	g.Go(func() (err error) {
		filter := &runtimeapi.ContainerFilter{LabelSelector: having}
		containers, err = rt.ListContainers(gctx, &runtimeapi.ListContainersRequest{Filter: filter}, opts...)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, nil, fmt.Errorf("listing sandboxes and containers: %w", err)
	}
	return sandboxes.GetItems(), containers.GetContainers(), nil
}
