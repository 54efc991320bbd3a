package pod

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/cri/remote"
	"flyball.dev/kubelet/pod/plan"
	"flyball.dev/kubelet/volumes"
)

const (
	observeRetry = time.Second      // when the runtime did not answer
	resizeRetry  = 10 * time.Second // when a resize could not be recorded
)

// worker runs one Pod. Others only put updates into its inbox and read seen; everything else
// belongs to its own goroutine.
type worker struct {
	m     *Manager
	uid   types.UID
	inbox *inbox
	seen  atomic.Pointer[v1.PodStatus] // the newest status

	state plan.State
	// desired is the Pod as the source has it, with the status of its mirror Pod if it is static.
	// state.Pod is made from it with an allocation, see adoptAllocated.
	desired, renderedFrom *v1.Pod
	renderedWith          *plan.Allocation

	admitted bool // see admit
	dirty    bool // the runtime has to be read again
	ops      map[string]*op
	mounted  map[string]volumes.Mounted
	sandbox  *runtimeapi.PodSandboxConfig // of the sandbox that runs, if this process made it
	// volumeImages are the IDs of the images that are volumes, by container and volume, for the
	// next start.
	volumeImages map[string]map[string]string
	writer       *writer
}

func newWorker(m *Manager, uid types.UID) *worker {
	return &worker{
		m: m, uid: uid, inbox: newInbox(), dirty: true, ops: map[string]*op{},
		volumeImages: map[string]map[string]string{},
		state:        plan.State{UID: uid, Node: m.cfg.Node, Memory: plan.NewMemory()},
	}
}

// run syncs whenever an update comes in or the time comes that the last sync returned. It ends with
// ctx, or when nothing of the Pod is left.
func (w *worker) run(ctx context.Context) {
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithValues("podUID", w.uid))
	w.writer = newWriter(ctx, w.m.cfg.Client, w.m.cfg.Recorder, w.inbox)
	defer w.stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.inbox.wake:
		case <-timer.C:
		}
		begun := time.Now()
		next := w.sync(ctx)
		w.m.metrics.synced(&w.state, time.Since(begun))
		if w.state.Gone() && !w.dirty && w.m.retire(w) {
			return
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(max(0, time.Until(next)))
		}
	}
}

func (w *worker) stop() {
	w.writer.stop()
	w.m.cfg.Probes.Remove(w.uid)
	for _, o := range w.ops {
		o.cancel()
	}
}

// sync brings the Pod one step towards what is wanted. It returns the time of the next sync, zero
// if only an update makes one necessary.
func (w *worker) sync(ctx context.Context) time.Time {
	w.receive(w.inbox.take())
	log := klog.FromContext(ctx).V(1)
	if err := w.observe(ctx); err != nil {
		log.Info("Cannot observe the Pod, trying again", "err", err)
		if w.m.cfg.Report != nil && remote.IsHung(err) {
			w.m.cfg.Report(fmt.Errorf("observing Pod %s: the container runtime hangs, and nothing can be done for the Pod meanwhile: %w", w.uid, err))
		}
		return time.Now().Add(observeRetry)
	}
	if err := w.admit(ctx); err != nil {
		log.Info("Cannot say whether the Pod fits the node, trying again", "err", err)
		return time.Now().Add(observeRetry)
	}
	now := time.Now()
	var again time.Time
	if err := w.allocate(); err != nil {
		log.Info("Cannot grant a resize, trying again", "err", err)
		again = now.Add(resizeRetry)
	}
	if t := w.state.NoteEnd(now); t != nil {
		w.recordTermination(t)
	}
	actions, next := plan.Plan(w.state, now)
	for _, a := range actions {
		w.act(ctx, a)
	}
	w.report(now)
	if !again.IsZero() && (next.IsZero() || again.Before(next)) {
		return again
	}
	return next
}

func (w *worker) receive(u update) {
	w.dirty = w.dirty || u.runtime
	for _, r := range u.results {
		w.finish(r)
	}
	switch {
	case u.mirror != nil:
		w.state.Mirror, w.state.Deleted = u.mirror, false
		u.pod = cmp.Or(u.pod, w.desired)
	case u.mirrorDeleted != nil:
		w.state.Mirror = nil
	}
	switch {
	case u.deleted != nil:
		w.state.Pod, w.state.Last, w.desired = nil, w.state.Allocation.Apply(u.deleted), nil
	case u.pod != nil:
		w.setPod(u.pod)
	}
	if u.termination != nil && w.state.Pod != nil && w.state.Termination == nil &&
		!podutil.IsPodPhaseTerminal(w.state.LastStatus().Phase) {
		w.state.Termination = u.termination
	}
	if u.retry {
		for slot, f := range w.state.Failures {
			f.RetryAt = time.Time{}
			w.state.Failures[slot] = f
		}
	}
}

func (w *worker) setPod(pod *v1.Pod) {
	if w.state.Mirror != nil {
		static := *pod
		static.Status = w.state.Mirror.Status
		pod = &static
	}
	if old := w.state.Last; old != nil {
		w.state.Stale = w.state.Stale || !maps.Equal(old.Labels, pod.Labels) || !maps.Equal(old.Annotations, pod.Annotations)
	}
	w.desired = pod
	w.adoptAllocated()
	w.state.Hashes = map[string]string{}
	for c := range podutil.ContainerIter(&pod.Spec, podutil.InitContainers|podutil.Containers) {
		w.state.Hashes[c.Name] = containers.Hash(c)
	}
}

func (w *worker) report(now time.Time) {
	if w.state.Pod == nil {
		return
	}
	status := plan.Status(w.state, now)
	before := cmp.Or(w.state.Status, &w.state.Pod.Status)
	w.recordResize(before, &status)
	w.m.metrics.ended(before, &status)
	ended := podutil.IsPodPhaseTerminal(status.Phase) && !podutil.IsPodPhaseTerminal(before.Phase)
	if w.state.Status == nil || !apiequality.Semantic.DeepEqual(*w.state.Status, status) {
		w.state.Status = &status
	}
	w.seen.Store(w.state.Status)
	if ended {
		w.m.freed.Set()
	}
	// The end of a deleted Pod waits for its last status, but not for one that the API server
	// refuses.
	object := w.state.Object()
	decided := object == nil || w.writer.set(object, *w.state.Status, w.state.Cleaned)
	if decided && w.state.Cleaned && !w.state.Reported {
		w.state.Reported = true
		w.inbox.put(update{})
	}
	w.m.metrics.observe(w.state.Pod, w.state.Status, now)
}
