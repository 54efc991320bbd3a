package probes

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Runtime runs a command in a container; runtimeapi.RuntimeServiceClient does.
type Runtime interface {
	ExecSync(ctx context.Context, in *runtimeapi.ExecSyncRequest, opts ...grpc.CallOption) (*runtimeapi.ExecSyncResponse, error)
}

// Asker carries probes out in place of the network and Runtime.
type Asker interface {
	// Ask makes one attempt at a probe of some kind and says how it went, with what
	// a user may want to know of it. An error means that it could not be made.
	Ask(ctx context.Context, pod *v1.Pod, t Target, kind Kind, p *v1.Probe) (ok bool, message string, err error)
}

// Config is what a Manager needs.
type Config struct {
	Runtime Runtime
	// Asker answers all probes, if it is not nil.
	Asker Asker
	// Record publishes an Event about a container of a pod. It must not block.
	// May be nil.
	Record func(pod *v1.Pod, container, eventtype, reason, message string)
}

// Target is a running container. Containers without probes may be among them.
type Target struct {
	Container   string
	ContainerID string
	StartedAt   time.Time
	// PodIP is the host of probes that name none.
	PodIP string
}

// Manager owns the probe goroutines of all pods. Its methods may be called from
// any goroutine.
type Manager struct {
	cfg     Config
	born    time.Time
	asker   asker
	metrics *probeMetrics

	ctx    context.Context
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu   sync.Mutex
	pods map[types.UID]*podProbes
}

type podProbes struct {
	pod     *v1.Pod
	changed func(types.UID)
	targets map[string]Target
	loops   map[loopKey]*loop
}

type loopKey struct {
	container string
	kind      Kind
}

// loop is one probe of one container instance. Everything but the channel is
// guarded by the Manager's lock.
type loop struct {
	key    loopKey
	target Target
	spec   *v1.Probe
	state  state
	cancel context.CancelFunc
	wake   chan struct{} // capacity 1: look at the state again
}

// New returns a Manager that probes nothing yet. Stop ends it.
func New(cfg Config) *Manager {
	ctx, cancel := context.WithCancel(context.Background())
	return &Manager{
		cfg: cfg, born: time.Now(), asker: newAsker(cfg), metrics: newMetrics(),
		ctx: ctx, cancel: cancel, pods: map[types.UID]*podProbes{},
	}
}

// Set makes the probes that run for a pod match its spec and the containers that
// run. It is idempotent and cheap; the worker calls it whenever it has looked at
// the pod. changed is called, from another goroutine and without any lock held,
// whenever a result of the pod changed afterwards. It must not block.
func (m *Manager) Set(pod *v1.Pod, running []Target, changed func(types.UID)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return
	}
	p := m.pods[pod.UID]
	if p == nil {
		p = &podProbes{loops: map[loopKey]*loop{}}
		m.pods[pod.UID] = p
	}
	p.pod, p.changed, p.targets = pod, changed, make(map[string]Target, len(running))

	wanted := map[loopKey]bool{}
	for _, t := range running {
		p.targets[t.Container] = t
		c := containerNamed(pod, t.Container)
		if c == nil {
			continue
		}
		probes := probed(pod, c)
		for _, kind := range []Kind{Startup, Readiness, Liveness} {
			spec, ok := probes[kind]
			if !ok {
				continue
			}
			key := loopKey{t.Container, kind}
			wanted[key] = true
			if l := p.loops[key]; l != nil && l.target.ContainerID == t.ContainerID {
				l.target = t
				continue
			}
			m.start(p, key, t, spec, probes[Startup] == nil)
		}
	}
	for key, l := range p.loops {
		if !wanted[key] {
			l.cancel()
			delete(p.loops, key)
			m.metrics.forget(p.pod, key)
		}
	}
}

// start replaces the loop of a key. The caller holds the lock.
func (m *Manager) start(p *podProbes, key loopKey, t Target, spec *v1.Probe, noStartup bool) {
	if old := p.loops[key]; old != nil {
		old.cancel()
	}
	s := begin(key.kind, thresholdsOf(spec), t.StartedAt, recorded(p.pod, t, key.kind))
	if key.kind != Startup {
		up := p.loops[loopKey{key.container, Startup}]
		s.started = noStartup || (up != nil && up.state.started)
	}
	if t.StartedAt.Before(m.born) {
		s.hurried = -1
		s.notBefore = m.born.Add(rand.N(s.spec.period)) //nolint:gosec // spreading load, not a secret
	}
	ctx, cancel := context.WithCancel(m.ctx)
	l := &loop{key: key, target: t, spec: spec, state: s, cancel: cancel, wake: make(chan struct{}, 1)}
	p.loops[key] = l
	m.all.Go(func() { m.run(ctx, p, l) })
}

// run is the life of one probe: wait until it is due, ask, remember.
func (m *Manager) run(ctx context.Context, p *podProbes, l *loop) {
	for {
		m.mu.Lock()
		at, due := next(l.state)
		m.mu.Unlock()

		var timer <-chan time.Time // nil blocks: a resting probe waits for wake
		if due {
			timer = time.After(time.Until(at))
		}
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
			continue
		case <-timer:
		}
		m.ask(ctx, p, l)
	}
}

// ask makes one attempt and records what came of it.
func (m *Manager) ask(ctx context.Context, p *podProbes, l *loop) {
	m.mu.Lock()
	pod, target := p.pod, l.target
	m.mu.Unlock()

	at := time.Now()
	answer := m.asker.ask(ctx, pod, target, l.key.kind, l.spec)
	took := time.Since(at)

	m.mu.Lock()
	if ctx.Err() != nil { // ended under the lock, while it was asking: nobody wants the answer
		m.mu.Unlock()
		return
	}
	before, quiet := l.state, l.state.hurrying()
	l.state = observe(l.state, answer.outcome, answer.message, at)
	flipped := before.verdict != l.state.verdict
	if l.key.kind == Startup && l.state.started {
		p.release(l.key.container)
	}
	m.metrics.count(pod, l.key, answer.outcome, took)
	changed := p.changed
	m.mu.Unlock()

	if reason, message, ok := event(l.key.kind, answer, quiet); ok && m.cfg.Record != nil {
		m.cfg.Record(pod, target.Container, v1.EventTypeWarning, reason, message)
	}
	if flipped && changed != nil {
		changed(pod.UID)
	}
}

// release lets the probes go that the startup probe held back; readiness is asked
// at once then. The caller holds the lock.
func (p *podProbes) release(container string) {
	for _, kind := range []Kind{Liveness, Readiness} {
		if l := p.loops[loopKey{container, kind}]; l != nil && !l.state.started {
			l.state.started = true
			select {
			case l.wake <- struct{}{}:
			default:
			}
		}
	}
}

// Results returns what the probes of a pod say, by container, for every running
// container of the last Set. A container without a probe of some kind has Success.
func (m *Manager) Results(uid types.UID) map[string]Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pods[uid]
	if p == nil {
		return nil
	}
	results := make(map[string]Result, len(p.targets))
	for name, t := range p.targets {
		r := Result{Startup: Success, Liveness: Success, Readiness: Success, ContainerID: t.ContainerID}
		for _, kind := range []Kind{Readiness, Startup, Liveness} {
			l := p.loops[loopKey{name, kind}]
			if l == nil {
				continue
			}
			r = r.with(l)
		}
		results[name] = r
	}
	return results
}

func (r Result) with(l *loop) Result {
	switch l.key.kind {
	case Startup:
		r.Startup = l.state.verdict
	case Liveness:
		r.Liveness = l.state.verdict
	case Readiness:
		r.Readiness = l.state.verdict
	}
	if l.state.verdict == Failure {
		if l.state.message != "" {
			r.Message = l.state.message
		}
		if l.key.kind != Readiness {
			r.TerminationGracePeriodSeconds = l.spec.TerminationGracePeriodSeconds
		}
	}
	return r
}

// Remove ends all probes of a pod and forgets it. It does not wait for them.
func (m *Manager) Remove(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pods[uid]
	if p == nil {
		return
	}
	for key, l := range p.loops {
		l.cancel()
		m.metrics.forget(p.pod, key)
	}
	delete(m.pods, uid)
}

// Stop ends all probes and waits until none runs any more.
func (m *Manager) Stop() {
	m.mu.Lock()
	m.cancel()
	m.pods = map[types.UID]*podProbes{}
	m.mu.Unlock()
	m.all.Wait()
}

// sameContainer compares IDs with or without the runtime's scheme: a Pod's status
// says containerd://ID, CRI says ID.
func sameContainer(a, b string) bool {
	return a != "" && bare(a) == bare(b)
}

func bare(id string) string {
	if _, after, ok := strings.Cut(id, "://"); ok {
		return after
	}
	return id
}
