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
func (w *worker) act(ctx context.Context, a Action) {
	log := klog.FromContext(ctx).V(2)
	if w.state.Last != nil {
		log = log.WithValues("pod", klog.KObj(w.state.Last))
	}
	log.Info("Acting", "action", kindOf(a), "detail", a, "reason", a.Why())
	w.m.metrics.acted(a)
	switch a := a.(type) {
	case Cancel:
		if o := w.ops[a.InSlot]; o != nil {
			o.cancel()
		}
		return
	case ReportBackOff:
		w.state.BackOff[a.Name] = a.Until
		w.event(a.Name, v1.EventTypeWarning, reasonBackOff,
			fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", a.Name, w.state.Last.Name, w.state.Last.Namespace, w.uid))
		return
	case RunPreStop:
		w.beginStop(a.ID, a.Name, a.Begun)
	case StopContainer:
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
func (w *worker) beginStop(id, name string, begun Stopping) {
	if _, ok := w.state.Stopping[id]; !ok {
		w.event(name, v1.EventTypeNormal, reasonKilling, begun.Message)
	}
	w.state.Stopping[id] = begun
}

// settle takes over how an action ended.
func (w *worker) settle(o outcome) {
	slot := o.op.action.Slot()
	switch o.op.action.(type) {
	case MountVolumes, PullImage, RunPreStop, CleanUp, Purge, DeletePod, GrowCgroup, CheckMemory, ShrinkCgroup: // the runtime has no part in them
	default:
		w.dirty = true
	}
	if w.ops[slot] != o.op {
		return // another action has taken its place
	}
	delete(w.ops, slot)
	delete(w.state.InFlight, slot)
	if a, ok := o.op.action.(StartContainer); ok {
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

// failureOf says what a failed action means: what the container waits with, and
// when it is tried again. A failed action is repeated with growing pauses.
func failureOf(a Action, err error, before Failure, now time.Time) Failure {
	f := Failure{Message: err.Error(), Count: before.Count + 1}
	first, longest := 250*time.Millisecond, 10*time.Second
	switch a.(type) {
	case MountVolumes:
		first, longest = 500*time.Millisecond, 2*time.Minute
	case StartContainer:
		first = time.Second
	case GrowCgroup, CheckMemory, ResizeContainer, ShrinkCgroup:
		f.Reason, first, longest = v1.PodReasonError, time.Second, 30*time.Second
	case StopContainer, RemoveContainer, StopSandbox, RemoveSandbox, CleanUp, DeletePod:
		longest = 30 * time.Second
	}
	f.RetryAt = now.Add(min(first<<min(before.Count, 10), longest))

	var image *images.Error
	var config *containers.Error
	var own *failed
	switch {
	case errors.As(err, &image):
		f.Reason, f.Message, f.RetryAt = image.Reason, image.Message, image.RetryAt
		if f.RetryAt.IsZero() {
			f.RetryAt = now.Add(longest) // only a change of the Pod or the node helps
		}
		if image.Reason == images.ReasonErrImagePull {
			// Asking again while it backs off turns the reason into ImagePullBackOff.
			f.RetryAt = now.Add(time.Second)
		}
	case errors.As(err, &config):
		f.Reason, f.Message = config.Reason, config.Message
	case errors.As(err, &own):
		f.Reason, f.Message = own.Reason, own.Message
		if own.Reason == reasonRunContainerError || own.Reason == reasonPostStartHookError {
			f.RetryAt = time.Time{} // the dead container decides, see backOff
		}
	}
	return f
}
