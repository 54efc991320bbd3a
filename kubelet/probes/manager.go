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
	"k8s.io/kubernetes/pkg/probe"

	"flyball.dev/internal/trigger"
	"flyball.dev/kubelet/cri"
)

// Runtime runs a command in a container; runtimeapi.RuntimeServiceClient does.
type Runtime interface {
	ExecSync(
		ctx context.Context, in *runtimeapi.ExecSyncRequest, opts ...grpc.CallOption,
	) (*runtimeapi.ExecSyncResponse, error)
}

// Asker makes attempts in place of the network and Runtime.
type Asker interface {
	// Ask makes one attempt at a probe and returns its outcome, with a message for the user. An
	// error means that it could not be made.
	Ask(ctx context.Context, pod *v1.Pod, t Target, kind Kind, p *v1.Probe) (ok bool, message string, err error)
}

// Config of a Manager.
type Config struct {
	Runtime Runtime
	// Asker makes all attempts, if it is not nil.
	Asker Asker
	// Record publishes an Event about a container of a Pod. It must not block. May be nil.
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

// Manager owns the loops of all Pods. Its methods may be called concurrently.
type Manager struct {
	cfg     Config
	born    time.Time
	prober  prober
	metrics *probeMetrics
	changes chan types.UID

	ctx    context.Context
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu   sync.Mutex
	pods map[types.UID]*podProbes
}

type podProbes struct {
	pod     *v1.Pod
	targets map[string]Target
	loops   map[loopKey]*loop
}

type loopKey struct {
	container string
	kind      Kind
}

// New returns a Manager that probes nothing yet. Stop ends it.
func New(cfg Config) *Manager {
	ctx, cancel := context.WithCancel(context.Background())
	return &Manager{
		cfg: cfg, born: time.Now(), prober: newProber(cfg), metrics: newMetrics(),
		changes: make(chan types.UID), ctx: ctx, cancel: cancel, pods: map[types.UID]*podProbes{},
	}
}

// Changes returns the UIDs of Pods for which Results has changed. Its only reader must always read,
// as probes wait for it.
func (m *Manager) Changes() <-chan types.UID { return m.changes }

// Set makes the probes that run for a Pod match its spec and its running containers. It is
// idempotent and cheap; the worker calls it whenever it has observed the Pod.
func (m *Manager) Set(pod *v1.Pod, running []Target) {
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
	p.pod, p.targets = pod, make(map[string]Target, len(running))

	wanted := map[loopKey]bool{}
	for _, t := range running {
		p.targets[t.Container] = t
		c := probeable(pod, t.Container)
		if c == nil {
			continue
		}
		probes := probed(pod, c)
		for _, kind := range kinds {
			key := loopKey{t.Container, kind}
			wanted[key] = probes[kind] != nil
			if l := p.loops[key]; wanted[key] && l != nil && l.target.ContainerID == t.ContainerID {
				l.target = t
			} else if wanted[key] {
				m.start(p, key, t, probes[kind], probes[Startup] == nil)
			}
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
		s.retries = -1
		s.notBefore = m.born.Add(rand.N(s.spec.period)) //nolint:gosec // spreading load, not a secret
	}
	ctx, cancel := context.WithCancel(m.ctx)
	l := &loop{key: key, target: t, spec: spec, state: s, cancel: cancel, wake: trigger.New()}
	p.loops[key] = l
	m.all.Go(func() { m.run(ctx, p, l) })
}

// Results returns what the probes of a Pod have found, by container, for the targets of the last
// Set. A probe that a container does not have succeeds.
func (m *Manager) Results(uid types.UID) map[string]cri.Probed {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pods[uid]
	if p == nil {
		return nil
	}
	results := make(map[string]cri.Probed, len(p.targets))
	for name, t := range p.targets {
		startup, readiness := p.loops[loopKey{name, Startup}], p.loops[loopKey{name, Readiness}]
		r := cri.Probed{
			ContainerID: t.ContainerID,
			Started:     startup == nil || startup.state.verdict == probe.Success,
			Ready:       readiness == nil || readiness.state.verdict == probe.Success,
		}
		for _, l := range []*loop{p.loops[loopKey{name, Liveness}], startup} {
			if l != nil && l.state.verdict == probe.Failure {
				r.Failed = strings.ToLower(string(l.key.kind))
				r.TerminationGracePeriodSeconds = l.spec.TerminationGracePeriodSeconds
			}
		}
		results[name] = r
	}
	return results
}

// Remove ends all probes of a Pod and forgets it. It does not wait for them.
func (m *Manager) Remove(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.pods[uid]; p != nil {
		for key, l := range p.loops {
			l.cancel()
			m.metrics.forget(p.pod, key)
		}
	}
	delete(m.pods, uid)
}

// Stop ends all probes and waits for them.
func (m *Manager) Stop() {
	m.mu.Lock()
	m.cancel()
	m.pods = map[types.UID]*podProbes{}
	m.mu.Unlock()
	m.all.Wait()
}

// kinds begin with Startup, which holds the others back.
var kinds = []Kind{Startup, Readiness, Liveness}

// loop is one probe of one container instance. The Manager's lock guards all but the channel.
type loop struct {
	key    loopKey
	target Target
	spec   *v1.Probe
	state  state
	cancel context.CancelFunc
	wake   trigger.Trigger // set when the state has changed
}

// run waits until the probe is due, makes an attempt, observes its outcome and reports it, until
// ctx ends.
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

		m.mu.Lock()
		pod, target := p.pod, l.target
		m.mu.Unlock()
		at = time.Now()
		got := m.prober.probe(ctx, pod, target, l.key.kind, l.spec)
		changed, quiet, ok := m.observe(ctx, p, l, got, at)
		if !ok {
			return
		}
		if reason, message, ok := event(l.key.kind, got, quiet); ok && m.cfg.Record != nil {
			m.cfg.Record(pod, target.Container, v1.EventTypeWarning, reason, message)
		}
		if changed {
			select {
			case m.changes <- pod.UID:
			case <-ctx.Done():
				return
			}
		}
	}
}

// observe updates the state after an attempt. It returns whether the verdict changed and whether a
// failure is quiet. If the loop has ended, ok is false and the outcome is dropped.
func (m *Manager) observe(
	ctx context.Context, p *podProbes, l *loop, got answer, at time.Time,
) (changed, quiet, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ctx.Err() != nil {
		return false, false, false
	}
	before := l.state
	l.state = observe(before, got.verdict(), at)
	if l.key.kind == Startup && l.state.started {
		p.release(l.key.container)
	}
	m.metrics.count(p.pod, l.key, got.verdict(), time.Since(at))
	return before.verdict != l.state.verdict, before.retrying(), true
}

// release starts the probes that the startup probe held back. The caller holds the lock.
func (p *podProbes) release(container string) {
	for _, kind := range []Kind{Liveness, Readiness} {
		if l := p.loops[loopKey{container, kind}]; l != nil && !l.state.started {
			l.state.started = true
			l.wake.Set()
		}
	}
}
