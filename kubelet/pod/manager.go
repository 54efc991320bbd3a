package pod

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
)

// Manager runs one worker for each Pod of this node, and for each Pod of which
// something is left on it.
type Manager struct {
	cfg     Config
	pods    Source
	gate    *gate
	metrics *metrics
	// admissions are the Pods that were let in by this process.
	admissions admissions
	// room has a token when Pods that wait for room may get it.
	room chan struct{}

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
		pods: cfg.Pods, workers: map[types.UID]*worker{}, room: make(chan struct{}, 1),
		admissions: newAdmissions(cfg.AllocationDir),
	}
}

// Run runs Pods until ctx ends. Containers run on then.
func (m *Manager) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	told, failed := make(chan struct{}), make(chan error, 1)
	running.Go(func() {
		failed <- m.pods.Run(ctx, cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { m.podChanged(nil, obj) },
			UpdateFunc: func(old, obj any) { m.podChanged(old, obj) },
			DeleteFunc: m.podGone,
		}, func() { close(told) })
	})
	// To a worker without a Pod everything that runs is an orphan.
	select {
	case <-told:
	case err := <-failed:
		return err
	}

	// Before any worker decides: what one Pod may have depends on what all have.
	allocated, err := m.admissions.files.load()
	if err != nil {
		return err
	}
	m.admissions.allocated = allocated
	resized := slices.Collect(maps.Keys(m.admissions.allocated))
	m.mu.Lock()
	m.ctx = ctx
	for _, w := range m.workers {
		m.launch(w)
	}
	m.mu.Unlock()
	running.Go(func() { m.giveRoom(ctx) })
	running.Go(func() { m.followProbes(ctx) })
	for _, uid := range resized {
		m.runtimeChanged(uid)
	}
	m.adoptLeftovers(ctx)
	m.cfg.Observer.Watch(ctx, m.runtimeChanged)
	m.all.Wait()
	return nil
}

// followProbes notifies the workers of the Pods whose probes have changed, until ctx ends.
func (m *Manager) followProbes(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case uid := <-m.cfg.Probes.Changes():
			m.probesChanged(uid)
		}
	}
}

func (m *Manager) probesChanged(uid types.UID) {
	m.mu.Lock()
	w := m.workers[uid]
	m.mu.Unlock()
	if w != nil {
		w.poke()
	}
}

// adoptLeftovers gives a worker to each Pod that only its leftovers tell of.
func (m *Manager) adoptLeftovers(ctx context.Context) {
	if m.cfg.Leftovers == nil {
		return
	}
	uids, err := m.cfg.Leftovers()
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot look for leftovers of Pods; they stay until the next start")
	}
	for _, uid := range uids {
		m.runtimeChanged(uid)
	}
}

func (m *Manager) podChanged(old, obj any) {
	pod := obj.(*v1.Pod) //nolint:forcetypeassert // an informer of Pods
	if before, ok := old.(*v1.Pod); ok && before.UID != pod.UID {
		m.podGone(before)
	}
	m.tell(pod.UID, func(w *worker) { w.setPod(pod) })
}

func (m *Manager) podGone(obj any) {
	if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = t.Obj
	}
	if pod, ok := obj.(*v1.Pod); ok {
		m.tell(pod.UID, func(w *worker) { w.dropPod(pod) })
		m.roomAppeared()
	}
}

// runtimeChanged wakes the worker of a Pod to look at the runtime again.
func (m *Manager) runtimeChanged(uid types.UID) { m.tell(uid, (*worker).lookAgain) }

// Retry wakes the worker of a Pod that waits for something outside of it, such
// as a ConfigMap, which may be there now.
func (m *Manager) Retry(uid types.UID) {
	m.mu.Lock()
	w := m.workers[uid]
	m.mu.Unlock()
	if w != nil {
		w.retry()
	}
}

// tell leaves mail for the worker of a Pod, and starts one if there is none. Both
// under one lock: a worker must not retire between being found and being told,
// nor look at its Pod before it was told of it. Before the Pods are known workers
// only collect mail: to a worker without a Pod, everything that runs is an orphan.
func (m *Manager) tell(uid types.UID, leave func(*worker)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.workers[uid]
	if w != nil {
		leave(w)
		return
	}
	w = newWorker(m, uid)
	m.workers[uid] = w
	leave(w)
	if m.ctx != nil {
		m.launch(w)
	}
}

// launch starts a worker. The caller holds the lock.
func (m *Manager) launch(w *worker) {
	ctx := m.ctx
	m.all.Go(func() { w.run(ctx) })
}

// retire removes a worker that has nothing left to do, unless mail has come in.
func (m *Manager) retire(w *worker) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.hasMail() {
		return false
	}
	delete(m.workers, w.uid)
	return true
}
