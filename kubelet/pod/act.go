package pod

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/images"
	"flyball.dev/kubelet/pod/plan"
)

// outcome of an action.
type outcome struct {
	op  *op
	err error
	// remember records a success in the worker's memory; may be nil.
	remember func(*worker)
}

// failed is an error in the words of a Pod's status.
type failed struct {
	Reason, Message string
	Err             error
}

func (f *failed) Error() string { return f.Message }
func (f *failed) Unwrap() error { return f.Err }

// act carries one action out: in a goroutine of its own, for nothing that takes
// time may keep the worker from noticing that the Pod was deleted.
func (w *worker) act(ctx context.Context, a plan.Action) {
	log := klog.FromContext(ctx).V(2)
	if w.state.Last != nil {
		log = log.WithValues("pod", klog.KObj(w.state.Last))
	}
	log.Info("Acting", "action", kindOf(a), "detail", a, "reason", a.Why())
	w.m.metrics.acted(a)
	switch a := a.(type) {
	case plan.Cancel:
		if o := w.ops[a.InSlot]; o != nil {
			o.cancel()
		}
		return
	case plan.ReportBackOff:
		w.state.BackOff[a.Name] = a.Until
		w.event(a.Name, v1.EventTypeWarning, reasonBackOff,
			fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", a.Name, w.state.Last.Name, w.state.Last.Namespace, w.uid))
		return
	case plan.RunPreStop:
		w.beginStop(a.ID, a.Name, a.Begun)
	case plan.StopContainer:
		w.beginStop(a.ID, a.Name, a.Begun)
	}
	if old := w.ops[a.Slot()]; old != nil {
		old.cancel()
	}
	opCtx, cancel := context.WithCancel(ctx)
	o := &op{action: a, cancel: cancel}
	w.ops[a.Slot()], w.state.InFlight[a.Slot()] = o, a
	j := w.job(ctx)
	w.m.all.Go(func() { // Run waits for it
		begun := time.Now()
		remember, err := j.do(opCtx, a)
		cancel()
		took := time.Since(begun)
		w.m.metrics.took(w.uid, a, err, begun, took)
		log.Info("Acted", "action", kindOf(a), "took", took, "err", err)
		w.post(outcome{o, err, remember})
	})
}

// beginStop announces once that a container is being ended.
func (w *worker) beginStop(id, name string, begun plan.Stopping) {
	if _, ok := w.state.Stopping[id]; !ok {
		w.event(name, v1.EventTypeNormal, reasonKilling, begun.Message)
	}
	w.state.Stopping[id] = begun
}

// settle takes over how an action ended.
func (w *worker) settle(o outcome) {
	slot := o.op.action.Slot()
	switch o.op.action.(type) {
	case plan.MountVolumes, plan.PullImage, plan.RunPreStop, plan.CleanUp, plan.Purge, plan.DeletePod, plan.GrowCgroup, plan.CheckMemory, plan.ShrinkCgroup: // the runtime has no part in them
	default:
		w.dirty = true
	}
	if w.ops[slot] != o.op {
		return // another action has taken its place
	}
	delete(w.ops, slot)
	delete(w.state.InFlight, slot)
	if a, ok := o.op.action.(plan.StartContainer); ok {
		delete(w.state.Images, a.Name) // the next start asks for it again
	}
	switch {
	case o.err == nil:
		delete(w.state.Failures, slot)
		if o.remember != nil {
			o.remember(w)
		}
	case errors.Is(o.err, context.Canceled):
	default:
		w.state.Failures[slot] = failureOf(o.op.action, o.err, w.state.Failures[slot], time.Now())
	}
}

// failureOf says what a failed action means, in the words that the package of the error chose.
func failureOf(a plan.Action, err error, before plan.Failure, now time.Time) plan.Failure {
	if image, ok := errors.AsType[*images.Error](err); ok {
		f := plan.NewFailure(a, image.Reason, image.Message, before, now)
		switch {
		case image.Reason == images.ReasonErrImagePull:
			// The next attempt, during the back-off, turns the reason into ImagePullBackOff.
			f.RetryAt = now.Add(time.Second)
		case image.RetryAt.IsZero():
			f.RetryAt = now.Add(10 * time.Second) // only a change of the Pod or the node helps
		default:
			f.RetryAt = image.RetryAt
		}
		return f
	}
	if config, ok := errors.AsType[*containers.Error](err); ok {
		return plan.NewFailure(a, config.Reason, config.Message, before, now)
	}
	if own, ok := errors.AsType[*failed](err); ok {
		return plan.NewFailure(a, own.Reason, own.Message, before, now)
	}
	return plan.NewFailure(a, "", err.Error(), before, now)
}
