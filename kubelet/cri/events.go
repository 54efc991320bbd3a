package cri

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

const (
	relistEvery    = 30 * time.Second
	relistPolling  = time.Second // for a runtime without an event stream
	reconnectFirst = 100 * time.Millisecond
	reconnectMax   = 5 * time.Second
)

// Watch calls changed for each Pod of which a sandbox or container stopped or was
// removed, until ctx ends. changed must not block. It may be called for more Pods
// than changed. Pods that the runtime knew before are reported once at the start.
//
// Events of what was created or started are left out: who creates and starts hears
// of it by the answer to the call. They are most of what a Pod's start would be
// observed for. Should somebody else have done it, the next relist finds out.
func (c *Client) Watch(ctx context.Context, changed func(types.UID)) {
	logger := klog.FromContext(ctx)
	every, wait := relistEvery, reconnectFirst
	for ctx.Err() == nil {
		begun := time.Now()
		err := c.stream(ctx, every, changed)
		if ctx.Err() != nil {
			return
		}
		if status.Code(err) == codes.Unimplemented {
			logger.Info("The container runtime has no event stream, it is polled instead", "every", relistPolling)
			c.poll(ctx, relistPolling, changed)
			return
		}
		if time.Since(begun) > reconnectMax {
			wait = reconnectFirst
		}
		logger.V(1).Info("The event stream of the container runtime ended, connecting again", "err", err, "wait", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, reconnectMax)
	}
}

// stream follows one event stream until it breaks. The relist at its beginning
// happens after the subscription, so that nothing falls between the two.
func (c *Client) stream(ctx context.Context, every time.Duration, changed func(types.UID)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := c.Runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("subscribing to container events: %w", err)
	}
	go c.poll(ctx, every, changed)
	for {
		e, err := events.Recv()
		if err != nil {
			return fmt.Errorf("reading container events: %w", err)
		}
		switch e.ContainerEventType {
		case runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT:
			continue
		}
		if uid := podOf(e); uid != "" {
			changed(uid)
		} else {
			// The sandbox is gone already, and the Pod's name with it.
			go c.Relist(ctx, changed) //nolint:errcheck // the next relist makes up for it
		}
	}
}

func podOf(e *runtimeapi.ContainerEventResponse) types.UID {
	if uid := e.GetPodSandboxStatus().GetMetadata().GetUid(); uid != "" {
		return types.UID(uid)
	}
	for _, s := range e.GetContainersStatuses() {
		if uid := s.GetLabels()[labelPodUID]; uid != "" {
			return types.UID(uid)
		}
	}
	return ""
}

func (c *Client) poll(ctx context.Context, every time.Duration, changed func(types.UID)) {
	for {
		if err := c.Relist(ctx, changed); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).V(1).Info("Relisting failed, it is repeated", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}

// Relist reads the whole runtime and calls changed for the Pods that look
// different from last time.
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
		uid := types.UID(s.GetMetadata().GetUid())
		facts[uid] = append(facts[uid], s.Id+s.State.String())
	}
	for _, s := range containers.Containers {
		uid := types.UID(s.Labels[labelPodUID])
		facts[uid] = append(facts[uid], s.Id+s.State.String())
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
