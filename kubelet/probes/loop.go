package probes

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
)

// kinds begin with Startup, which holds the others back.
var kinds = []Kind{Startup, Readiness, Liveness}

// loop is one probe of one container instance. The Manager's lock guards all but the channel.
type loop struct {
	key    loopKey
	target Target
	spec   *v1.Probe
	state  state
	cancel context.CancelFunc
	wake   chan struct{} // capacity 1: the state has changed
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
// failure is quiet; ok is false if the loop has ended, and the outcome with it.
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
			select {
			case l.wake <- struct{}{}:
			default:
			}
		}
	}
}
