package pod

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/events"
	"k8s.io/kubernetes/pkg/kubelet/util/format"

	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/images"
	"flyball.dev/kubelet/pod/plan"
	"flyball.dev/kubelet/volumes"
)

// op is an action under way.
type op struct {
	action plan.Action
	cancel context.CancelFunc
}

type result struct {
	op  *op
	err error
	made
}

// made is what an action has produced besides its effect on the node, for later actions.
type made struct {
	mounted      map[string]volumes.Mounted   // by MountVolumes
	sandbox      *runtimeapi.PodSandboxConfig // by CreateSandbox
	image        string                       // by PullImage: the ID of the container's image,
	volumeImages map[string]string            // and those of its volumes, by volume
}

// act carries one action out, in a goroutine of its own: the worker must notice a deletion while
// the action takes its time.
func (w *worker) act(ctx context.Context, a plan.Action) {
	log := klog.FromContext(ctx).V(2)
	if w.state.Last != nil {
		log = log.WithValues("pod", klog.KObj(w.state.Last))
	}
	log.Info("Acting", "action", kindOf(a), "detail", a, "reason", a.Why())
	w.m.metrics.acted(a)
	switch a := a.(type) {
	case plan.Cancel:
		w.cancel(a.InSlot)
		return
	case plan.ReportBackOff:
		w.state.Begin(a)
		w.event(a.Name, v1.EventTypeWarning, events.BackOffStartContainer,
			fmt.Sprintf("Back-off restarting failed container %s in pod %s", a.Name, format.Pod(w.state.Last)))
		return
	case plan.RunPreStop:
		w.recordKilling(a.ID, a.Name, a.Begun)
	case plan.StopContainer:
		w.recordKilling(a.ID, a.Name, a.Begun)
	}
	slot := plan.Slot(a)
	w.cancel(slot)
	opCtx, cancel := context.WithCancel(ctx)
	o := &op{action: a, cancel: cancel}
	w.ops[slot] = o
	w.state.Begin(a)
	j, begun := w.job(ctx), time.Now()
	w.m.all.Go(func() { // Run waits for it
		out, err := j.do(opCtx, a)
		cancel()
		took := time.Since(begun)
		w.m.metrics.took(w.uid, a, err, begun, took)
		log.Info("Acted", "action", kindOf(a), "took", took, "err", err)
		w.inbox.put(update{results: []result{{o, err, out}}})
	})
}

func (w *worker) cancel(slot string) {
	if o := w.ops[slot]; o != nil {
		o.cancel()
	}
}

// recordKilling records an Event once for each container that is being ended.
func (w *worker) recordKilling(id, name string, begun plan.Stopping) {
	if _, ok := w.state.Stopping[id]; !ok {
		w.event(name, v1.EventTypeNormal, events.KillingContainer, begun.Message)
	}
}

func (w *worker) finish(r result) {
	switch r.op.action.(type) {
	case plan.MountVolumes, plan.PullImage, plan.RunPreStop, plan.CleanUp, plan.Purge, plan.DeletePod,
		plan.GrowCgroup, plan.CheckMemory, plan.ShrinkCgroup: // they do not change the runtime
	default:
		w.dirty = true
	}
	slot := plan.Slot(r.op.action)
	if w.ops[slot] != r.op {
		return // another action has taken its place
	}
	delete(w.ops, slot)
	if errors.Is(r.err, context.Canceled) {
		w.state.GiveUp(r.op.action)
		return
	} else if r.err != nil {
		w.state.Fail(r.op.action, failureOf(r.op.action, r.err, w.state.Failures[slot], time.Now()))
		return
	}
	w.state.Succeed(r.op.action)
	switch a := r.op.action.(type) {
	case plan.MountVolumes:
		w.mounted = r.mounted
	case plan.CreateSandbox:
		w.sandbox = r.sandbox
	case plan.PullImage:
		w.state.Images[a.Name], w.volumeImages[a.Name] = r.image, r.volumeImages
	}
}

// failureOf says what a failed action means, with the reason and message of the package that
// failed.
func failureOf(a plan.Action, err error, before plan.Failure, now time.Time) plan.Failure {
	if image, ok := errors.AsType[*images.Error](err); ok {
		f := plan.NewFailure(a, image.Reason, image.Message, before, now)
		// Without a time only a change of the Pod or the node helps.
		f.RetryAt = cmp.Or(image.RetryAt, now.Add(10*time.Second))
		if image.Reason == images.ReasonErrImagePull {
			// The next attempt, during the back-off, turns the reason into ImagePullBackOff.
			f.RetryAt = now.Add(time.Second)
		}
		return f
	}
	if start, ok := errors.AsType[*containers.Error](err); ok {
		return plan.NewFailure(a, start.Reason, start.Message, before, now)
	}
	return plan.NewFailure(a, "", err.Error(), before, now)
}
