package probes

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/probe"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

// Kind is one of the three probes of a container, as upstream's Events and metrics spell it.
type Kind string

const (
	// Startup holds back the other two until it has passed once.
	Startup Kind = "Startup"
	// Liveness restarts the container when it fails.
	Liveness Kind = "Liveness"
	// Readiness removes the Pod from its Services when it fails.
	Readiness Kind = "Readiness"
)

// firstRetry is how soon a readiness probe is repeated after its first attempt failed on a
// container that has just started. A server needs some milliseconds until it listens; without this
// it would be ready one whole period later. The pause doubles until it reaches the period.
const firstRetry = 100 * time.Millisecond

// state is the state of one probe of one container instance.
type state struct {
	kind  Kind
	spec  thresholds
	begun time.Time // when the container started

	// notBefore delays the first attempt after a restart of the agent, so that the probes of a full
	// node do not start at the same moment.
	notBefore time.Time

	started bool // the startup probe passed, or there is none
	held    bool // only a new container changes the verdict

	// verdict is Unknown until there is one. It changes after as many equal attempts in a row as
	// the threshold says.
	verdict probe.Result

	last    probe.Result // of the last attempt
	run     int          // how many attempts in a row had this outcome
	tried   time.Time    // when the last attempt began; zero: never
	retries int          // quick retries so far; -1: no more
}

// thresholds are the numbers of a v1.Probe, with the API's defaults filled in.
type thresholds struct {
	initialDelay, period time.Duration
	failure, success     int
}

func thresholdsOf(p *v1.Probe) thresholds {
	seconds := func(n int32) time.Duration { return time.Duration(n) * time.Second }
	return thresholds{
		initialDelay: seconds(p.InitialDelaySeconds), period: seconds(cmp.Or(p.PeriodSeconds, 10)),
		failure: int(cmp.Or(p.FailureThreshold, 3)), success: int(cmp.Or(p.SuccessThreshold, 1)),
	}
}

// begin is the state of a probe whose container started at begun. was is the verdict that the Pod's
// status records for this container instance, probe.Unknown if it records none.
func begin(kind Kind, spec thresholds, begun time.Time, was probe.Result) state {
	s := state{kind: kind, spec: spec, begun: begun, verdict: was}
	if was == probe.Success {
		s.retries = -1
	}
	switch {
	case kind == Startup:
		s.started, s.held = was == probe.Success, was == probe.Success
	case kind == Liveness: // alive until proven otherwise
		s.verdict = probe.Success
	case was != probe.Success: // not ready until proven otherwise
		s.verdict = probe.Failure
	}
	return s
}

// next returns when the probe is due. ok is false while it rests: until the startup probe has
// passed, or for good.
func next(s state) (at time.Time, ok bool) {
	if s.held || (s.kind != Startup && !s.started) {
		return time.Time{}, false
	}
	if s.tried.IsZero() {
		at = s.begun.Add(s.spec.initialDelay)
		return slices.MaxFunc([]time.Time{at, s.notBefore}, time.Time.Compare), true
	}
	return s.tried.Add(s.interval()), true
}

// retrying reports whether the probe is in the quick retries after the start of its container.
// Failures in this phase are neither counted nor reported.
func (s state) retrying() bool {
	return s.kind == Readiness && s.retries >= 0 && s.interval() < s.spec.period
}

func (s state) interval() time.Duration {
	if s.kind != Readiness || s.retries < 0 || s.retries > 16 {
		return s.spec.period
	}
	return min(firstRetry<<max(s.retries-1, 0), s.spec.period)
}

// observe is the state after an attempt that began at the given time. An attempt that could not be
// made (probe.Unknown) changes no verdict.
func observe(s state, got probe.Result, at time.Time) state {
	quick := s.retrying()
	s.tried = at
	if got == probe.Success {
		s.retries = -1
	} else if s.retries >= 0 {
		s.retries++
	}
	if got == probe.Unknown || (quick && got == probe.Failure) {
		return s
	}
	if s.last == got {
		s.run++
	} else {
		s.last, s.run = got, 1
	}
	if (got == probe.Failure && s.run < s.spec.failure) || (got == probe.Success && s.run < s.spec.success) {
		return s
	}
	s.verdict = got
	switch {
	case s.kind == Startup:
		// Either verdict stands until there is a new container: more attempts would run commands in
		// one that is about to be stopped.
		s.held = true
		s.started = got == probe.Success
	case s.kind == Liveness && got == probe.Failure:
		s.held = true
	}
	return s
}

// probed lists the probes of a container. A Pod that is being deleted keeps only readiness: nothing
// restarts any more, but it must leave its Services when its server does not answer.
func probed(pod *v1.Pod, c *v1.Container) map[Kind]*v1.Probe {
	probes := map[Kind]*v1.Probe{Readiness: c.ReadinessProbe}
	if pod.DeletionTimestamp == nil {
		probes[Startup], probes[Liveness] = c.StartupProbe, c.LivenessProbe
	}
	maps.DeleteFunc(probes, func(_ Kind, p *v1.Probe) bool { return p == nil })
	return probes
}

// probeable returns a container that can have probes; nil if there is none of the name.
func probeable(pod *v1.Pod, name string) *v1.Container {
	c, kind := cri.FindContainer(pod, name)
	able := kind == podutil.Containers || kind == podutil.InitContainers && podutil.IsRestartableInitContainer(c)
	return lo.Ternary(able, c, nil)
}

// recorded is the verdict in the Pod's status about this container instance, so that an agent that
// has restarted continues from it.
func recorded(pod *v1.Pod, t Target, kind Kind) probe.Result {
	s := cri.FindStatus(pod, t.Container)
	same := s != nil && s.ContainerID != "" && cri.BareID(s.ContainerID) == cri.BareID(t.ContainerID)
	if same && (kind == Startup && ptr.Deref(s.Started, false) || kind == Readiness && s.Ready) {
		return probe.Success
	}
	return probe.Unknown
}
