package pod

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/cri/remote"
	"flyball.dev/kubelet/pod/plan"
	"flyball.dev/kubelet/volumes"
)

// observeRetry is how soon the runtime is asked again when it did not answer.
const observeRetry = time.Second

// resizeRetry is how soon a resize is decided again that could not be recorded.
const resizeRetry = 10 * time.Second

// worker looks after one Pod. Others only leave mail and wake it; all else is
// touched by its own goroutine alone.
type worker struct {
	m    *Manager
	uid  types.UID
	wake chan struct{}                // capacity 1
	seen atomic.Pointer[v1.PodStatus] // the newest status, for others to read

	mu   sync.Mutex
	mail mail

	state plan.State
	// desired is the Pod as the API server has it; state.Pod is made from it with an
	// allocation, see adoptAllocated.
	desired, renderedFrom *v1.Pod
	renderedWith          *plan.Allocation

	admitted bool // see admit
	dirty    bool // the runtime has to be asked again
	ops      map[string]*op
	mounted  map[string]volumes.Mounted
	// sandbox is the config of the sandbox that runs, if this process made it.
	sandbox *runtimeapi.PodSandboxConfig
	// volumeImages are the IDs of the images that are volumes, by container and
	// volume, for the next start.
	volumeImages map[string]map[string]string
	writer       *writer
}

// mail is what others have left for a worker.
type mail struct {
	pod      *v1.Pod
	gone     *v1.Pod
	dirty    bool
	retry    bool
	any      bool
	outcomes []outcome
}

// op is an action under way.
type op struct {
	action plan.Action
	cancel context.CancelFunc
}

func newWorker(m *Manager, uid types.UID) *worker {
	w := &worker{m: m, uid: uid, wake: make(chan struct{}, 1), dirty: true, ops: map[string]*op{}, volumeImages: map[string]map[string]string{}}
	w.state = plan.State{UID: uid, Node: m.cfg.Node, Memory: plan.Memory{
		InFlight: map[string]plan.Action{}, Failures: map[string]plan.Failure{}, Images: map[string]string{},
		Stopping: map[string]plan.Stopping{}, Stopped: map[string]bool{}, BackOff: map[string]time.Time{},
		Given: map[string]cri.Resources{},
	}}
	return w
}

func (w *worker) leave(put func(*mail)) {
	w.mu.Lock()
	put(&w.mail)
	w.mail.any = true
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *worker) setPod(pod *v1.Pod)  { w.leave(func(m *mail) { m.pod, m.gone = pod, nil }) }
func (w *worker) dropPod(pod *v1.Pod) { w.leave(func(m *mail) { m.pod, m.gone = nil, pod }) }
func (w *worker) lookAgain()          { w.leave(func(m *mail) { m.dirty = true }) }
func (w *worker) retry()              { w.leave(func(m *mail) { m.retry = true }) }
func (w *worker) poke()               { w.leave(func(*mail) {}) }
func (w *worker) post(o outcome)      { w.leave(func(m *mail) { m.outcomes = append(m.outcomes, o) }) }

func (w *worker) hasMail() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mail.any
}

// run is the life of the worker: it ends with ctx, or once nothing of the Pod is left.
func (w *worker) run(ctx context.Context) {
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithValues("podUID", w.uid))
	w.writer = newWriter(ctx, w.m.cfg.Client, w.uid, w.poke, w.statusRefused(klog.FromContext(ctx)))
	defer w.stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
		begun := time.Now()
		next := w.sync(ctx)
		w.m.metrics.synced(&w.state, time.Since(begun))
		if w.state.Gone() && !w.dirty && w.m.retire(w) {
			w.m.metrics.forget(w.uid)
			w.m.admissions.forget(w.uid)
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

// sync is one turn: observe, plan, act, report. It returns when to look again.
func (w *worker) sync(ctx context.Context) time.Time {
	w.openMail()
	if err := w.observe(ctx); err != nil {
		klog.FromContext(ctx).V(1).Info("Cannot observe the Pod, trying again", "err", err)
		if w.m.cfg.Report != nil && remote.IsHung(err) {
			w.m.cfg.Report(fmt.Errorf("observing Pod %s: the container runtime hangs, and nothing can be done for the Pod meanwhile: %w", w.uid, err))
		}
		return time.Now().Add(observeRetry)
	}
	if err := w.admit(ctx); err != nil {
		klog.FromContext(ctx).V(1).Info("Cannot say whether the Pod fits the node, trying again", "err", err)
		return time.Now().Add(observeRetry)
	}
	now := time.Now()
	var again time.Time
	if err := w.allocate(); err != nil {
		klog.FromContext(ctx).V(1).Info("Cannot grant a resize, trying again", "err", err)
		again = now.Add(resizeRetry)
	}
	w.state.NoteEnding(now)
	actions, next := plan.Plan(w.state, now)
	for _, a := range actions {
		w.act(ctx, a)
	}
	w.report(now)
	if !again.IsZero() && (next.IsZero() || again.Before(next)) {
		next = again
	}
	return next
}

// openMail takes over what others have left.
func (w *worker) openMail() {
	w.mu.Lock()
	m := w.mail
	w.mail = mail{}
	w.mu.Unlock()

	w.dirty = w.dirty || m.dirty
	for _, o := range m.outcomes {
		w.settle(o)
	}
	switch {
	case m.pod != nil:
		w.adopt(m.pod)
	case m.gone != nil:
		w.state.Pod, w.state.Last, w.desired = nil, w.state.Allocation.Apply(m.gone), nil
	}
	if m.retry {
		for slot, f := range w.state.Failures {
			f.RetryAt = time.Time{}
			w.state.Failures[slot] = f
		}
	}
}

func (w *worker) adopt(pod *v1.Pod) {
	if old := w.state.Last; old != nil {
		w.state.Stale = w.state.Stale || !maps.Equal(old.Labels, pod.Labels) || !maps.Equal(old.Annotations, pod.Annotations)
	}
	w.desired = pod
	w.adoptAllocated()
	w.state.Hashes = map[string]string{}
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			w.state.Hashes[list[i].Name] = containers.Hash(&list[i])
		}
	}
}

// report computes the status and hands it to the writer.
func (w *worker) report(now time.Time) {
	if w.state.Pod == nil {
		return
	}
	status := plan.Status(w.state, now)
	before := &w.state.Pod.Status
	if w.state.Status != nil {
		before = w.state.Status
	}
	w.tellResize(before, &status)
	w.m.metrics.ended(before, &status)
	ended := podutil.IsPodPhaseTerminal(status.Phase) && !podutil.IsPodPhaseTerminal(before.Phase)
	if w.state.Status == nil || !apiequality.Semantic.DeepEqual(*w.state.Status, status) {
		w.state.Status = &status
	}
	w.seen.Store(w.state.Status)
	if ended {
		w.m.roomAppeared()
	}
	// The end of a deleted Pod waits for its last status, but not for one that the API server
	// refuses.
	decided := w.writer.set(w.state.Pod, *w.state.Status, w.state.Cleaned)
	if decided && w.state.Cleaned && !w.state.Reported {
		w.state.Reported = true
		w.poke()
	}
	w.m.metrics.observe(w.state.Pod, w.state.Status, now)
}
