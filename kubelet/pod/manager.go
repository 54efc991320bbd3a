package pod

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"sync"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	kubetypes "k8s.io/kubernetes/pkg/kubelet/types"

	"flyball.dev/internal/trigger"
	"flyball.dev/kubelet/pod/plan"
)

// Manager runs one worker for each Pod of this node, and for each Pod that is gone from the API
// server while something of it is left on the node.
type Manager struct {
	cfg     Config
	gate    *gate
	metrics *metrics
	// admissions are the decisions about all Pods: who runs here, and with which resources.
	admissions admissions
	// freed is set when resources were freed that a resize may wait for. grantResizes waits for it:
	// the handler of the watch, which sets it, must not wait for the disk.
	freed trigger.Trigger

	mu      sync.Mutex
	workers map[types.UID]*worker
	// ctx of Run; nil before the Pods are known.
	ctx context.Context
	all sync.WaitGroup // workers and their actions
}

// New returns a Manager that does nothing until Run.
func New(cfg Config) *Manager {
	if cfg.Parallel == 0 {
		cfg.Parallel = 2 * runtime.NumCPU()
	}
	if cfg.Recorder == nil {
		cfg.Recorder = &record.FakeRecorder{}
	}
	if cfg.Pods == nil {
		cfg.Pods = newWatched(cfg.Client, cfg.NodeName)
	}
	return &Manager{
		cfg: cfg, gate: newGate(cfg.Parallel), metrics: newMetrics(),
		workers: map[types.UID]*worker{}, freed: trigger.New(), admissions: newAdmissions(cfg.AllocationDir),
	}
}

// Run runs Pods until ctx ends. Containers run on then.
func (m *Manager) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	synced, failed := make(chan struct{}), make(chan error, 1)
	running.Go(func() {
		failed <- m.cfg.Pods.Run(ctx, cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { m.podChanged(nil, obj) },
			UpdateFunc: func(old, obj any) { m.podChanged(old, obj) },
			DeleteFunc: m.podDeleted,
		}, func() { close(synced) })
	})
	// To a worker without a Pod everything that runs is an orphan.
	select {
	case <-synced:
	case err := <-failed:
		return err
	}

	// Before any worker decides, because the resources of one Pod depend on those of all.
	allocated, err := m.admissions.files.load()
	if err != nil {
		return err
	}
	m.admissions.allocated = maps.Clone(allocated)
	m.mu.Lock()
	m.ctx = ctx
	for _, w := range m.workers {
		m.all.Go(func() { w.run(ctx) })
	}
	m.mu.Unlock()
	running.Go(func() { m.grantResizes(ctx) })
	running.Go(func() { m.followProbes(ctx) })
	for uid := range allocated {
		m.runtimeChanged(uid)
	}
	m.adoptLeftovers(ctx)
	m.cfg.Runtime.Watch(ctx, m.runtimeChanged)
	m.all.Wait()
	return nil
}

func (m *Manager) followProbes(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case uid := <-m.cfg.Probes.Changes():
			m.notify(uid, update{})
		}
	}
}

// adoptLeftovers starts a worker for each Pod that is known only by what it has left on the node.
func (m *Manager) adoptLeftovers(ctx context.Context) {
	if m.cfg.Leftovers == nil {
		return
	}
	uids, err := m.cfg.Leftovers()
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot list the leftovers of Pods, they stay until the next start")
	}
	for _, uid := range uids {
		m.runtimeChanged(uid)
	}
}

func (m *Manager) podChanged(old, obj any) {
	pod := obj.(*v1.Pod) //nolint:forcetypeassert // an informer of Pods
	if before, ok := old.(*v1.Pod); ok && before.UID != pod.UID {
		m.podDeleted(before)
	}
	if kubetypes.IsMirrorPod(pod) {
		m.enqueue(m.staticOf(pod), update{mirror: pod})
		return
	}
	m.enqueue(pod.UID, update{pod: pod})
}

func (m *Manager) podDeleted(obj any) {
	if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = t.Obj
	}
	switch pod, ok := obj.(*v1.Pod); {
	case !ok:
	case kubetypes.IsMirrorPod(pod):
		m.enqueue(m.staticOf(pod), update{mirrorDeleted: pod})
	default:
		m.enqueue(pod.UID, update{deleted: pod})
		m.freed.Set()
	}
}

// staticOf returns the UID of the static Pod that a mirror Pod stands for; the UID of the mirror
// Pod itself if there is no such Pod (any more), so that a worker of its own deletes it.
func (m *Manager) staticOf(mirror *v1.Pod) types.UID {
	if static, ok := m.cfg.Pods.Pod(mirror.Namespace, mirror.Name); ok && plan.IsMirrorOf(mirror, static) {
		return static.UID
	}
	return mirror.UID
}

func (m *Manager) runtimeChanged(uid types.UID) { m.enqueue(uid, update{runtime: true}) }

// Retry has a Pod's failed actions tried again at once, because something outside of the Pod has
// changed, such as a ConfigMap.
func (m *Manager) Retry(uid types.UID) { m.notify(uid, update{retry: true}) }

// Terminate ends a Pod of this node because the node decided so. The first decision about a Pod
// stays, and a Pod that has ended stays as it is. Terminate does not wait for the end of the Pod.
// It returns false if the node has nothing of the Pod.
func (m *Manager) Terminate(uid types.UID, t plan.Termination) bool {
	return m.notify(uid, update{termination: &t})
}

// enqueue hands an update to the worker of a Pod, and starts a worker if there is none. Before Run
// knows the Pods, workers only collect updates: to a worker without a Pod, everything that runs is
// an orphan.
func (m *Manager) enqueue(uid types.UID, u update) {
	m.mu.Lock()
	defer m.mu.Unlock() // held over both steps: a worker must not retire between them
	w, known := m.workers[uid]
	if !known {
		w = newWorker(m, uid)
		m.workers[uid] = w
	}
	w.inbox.put(u)
	if !known && m.ctx != nil {
		m.all.Go(func() { w.run(m.ctx) })
	}
}

// notify hands an update to the worker of a Pod, and says whether there is one.
func (m *Manager) notify(uid types.UID, u update) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.workers[uid]
	if w != nil {
		w.inbox.put(u)
	}
	return w != nil
}

// retire removes a worker that has nothing left to do, unless an update has come in.
func (m *Manager) retire(w *worker) bool {
	m.mu.Lock()
	retired := w.inbox.empty()
	if retired {
		delete(m.workers, w.uid)
	}
	m.mu.Unlock()
	if retired {
		m.metrics.forget(w.uid)
		m.admissions.forget(w.uid)
	}
	return retired
}

// Pods returns all Pods of this node with their newest status. They are not to be changed.
func (m *Manager) Pods() []*v1.Pod {
	return lo.Map(m.known(), func(p *v1.Pod, _ int) *v1.Pod { return m.current(p) })
}

// known are the Pods of this node without the mirrors of static ones.
func (m *Manager) known() []*v1.Pod {
	return slices.DeleteFunc(m.cfg.Pods.Pods(), kubetypes.IsMirrorPod)
}

// Pod returns a Pod of this node with its newest status. It is not to be changed.
func (m *Manager) Pod(namespace, name string) (*v1.Pod, bool) {
	p, ok := m.cfg.Pods.Pod(namespace, name)
	if !ok || kubetypes.IsMirrorPod(p) {
		return nil, false
	}
	return m.current(p), true
}

// current puts the status that the worker saw last, and that the API server may not have yet, in
// place of the one that was watched.
func (m *Manager) current(pod *v1.Pod) *v1.Pod {
	m.mu.Lock()
	w := m.workers[pod.UID]
	m.mu.Unlock()
	if w != nil && w.seen.Load() != nil {
		now := *pod
		now.Status = *w.seen.Load()
		return &now
	}
	return pod
}
