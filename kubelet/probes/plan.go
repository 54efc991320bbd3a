package probes

import (
	"time"

	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

// Outcome is the result of an attempt, and the verdict of a probe.
type Outcome string

const (
	// Unknown means that an attempt could not be made, or that there is no verdict yet.
	Unknown Outcome = "Unknown"
	// Success means that the probe passed, or that the container has no such probe.
	Success Outcome = "Success"
	// Failure means that the attempt failed, or as many in a row as the threshold says.
	Failure Outcome = "Failure"
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

	verdict Outcome
	message string

	last    Outcome   // of the last attempt
	run     int       // how many attempts in a row had this outcome
	tried   time.Time // when the last attempt began; zero: never
	retries int       // quick retries so far; -1: no more
}

// thresholds are the numbers of a v1.Probe, with the API's defaults filled in.
type thresholds struct {
	initialDelay, period time.Duration
	failure, success     int
}

func thresholdsOf(p *v1.Probe) thresholds {
	seconds := func(n int32) time.Duration { return time.Duration(n) * time.Second }
	return thresholds{
		initialDelay: seconds(p.InitialDelaySeconds),
		period:       seconds(orDefault(p.PeriodSeconds, 10)),
		failure:      int(orDefault(p.FailureThreshold, 3)),
		success:      int(orDefault(p.SuccessThreshold, 1)),
	}
}

func orDefault(n, otherwise int32) int32 {
	if n > 0 {
		return n
	}
	return otherwise
}

// begin is the state of a probe whose container started at begun. was is the verdict that the Pod's
// status records for this container instance, Unknown if it records none.
func begin(kind Kind, spec thresholds, begun time.Time, was Outcome) state {
	s := state{kind: kind, spec: spec, begun: begun, verdict: was}
	if was == Success {
		s.retries = -1
	}
	switch kind {
	case Startup:
		s.started = was == Success
		s.held = was == Success
	case Liveness:
		// Alive until proven otherwise.
		s.verdict = Success
	case Readiness:
		// Not ready until proven otherwise.
		if was != Success {
			s.verdict = Failure
		}
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
		if at.Before(s.notBefore) {
			at = s.notBefore
		}
		return at, true
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
// made (Unknown) changes no verdict.
func observe(s state, got Outcome, message string, at time.Time) state {
	quick := s.retrying()
	s.tried = at
	if got == Success {
		s.retries = -1
	} else if s.retries >= 0 {
		s.retries++
	}
	if got == Unknown || (quick && got == Failure) {
		return s
	}
	if s.last == got {
		s.run++
	} else {
		s.last, s.run = got, 1
	}
	if (got == Failure && s.run < s.spec.failure) || (got == Success && s.run < s.spec.success) {
		return s
	}
	s.verdict, s.message = got, message
	switch {
	case s.kind == Startup:
		// Either verdict stands until there is a new container: more attempts would run commands in
		// one that is about to be stopped.
		s.held = true
		s.started = got == Success
	case s.kind == Liveness && got == Failure:
		s.held = true
	}
	return s
}

// Result are the verdicts of the probes of one container.
type Result struct {
	Startup, Liveness, Readiness Outcome
	// Message is that of the probe that failed; of liveness, if it and readiness did.
	Message string
	// ContainerID is the instance that was probed: a caller that has replaced it must not act on
	// the result.
	ContainerID string
	// TerminationGracePeriodSeconds is that of the failed startup or liveness probe; nil if it has
	// none, and the Pod's applies.
	TerminationGracePeriodSeconds *int64
}

// Restart reports whether the container must be restarted, and because of which probe.
func (r Result) Restart() (Kind, bool) {
	switch {
	case r.Startup == Failure:
		return Startup, true
	case r.Liveness == Failure:
		return Liveness, true
	}
	return "", false
}

// Ready reports whether the container is ready for traffic.
func (r Result) Ready() bool { return r.Startup == Success && r.Readiness == Success }

// probed lists the probes of a container. A Pod that is being deleted keeps only readiness: nothing
// restarts any more, but it must leave its Services when its server does not answer.
func probed(pod *v1.Pod, c *v1.Container) map[Kind]*v1.Probe {
	probes := map[Kind]*v1.Probe{}
	if c.ReadinessProbe != nil {
		probes[Readiness] = c.ReadinessProbe
	}
	if pod.DeletionTimestamp != nil {
		return probes
	}
	if c.StartupProbe != nil {
		probes[Startup] = c.StartupProbe
	}
	if c.LivenessProbe != nil {
		probes[Liveness] = c.LivenessProbe
	}
	return probes
}

// probeable returns a container that can have probes; nil if there is none of the name.
func probeable(pod *v1.Pod, name string) *v1.Container {
	c, kind := cri.FindContainer(pod, name)
	if kind == podutil.Containers || kind == podutil.InitContainers && podutil.IsRestartableInitContainer(c) {
		return c
	}
	return nil
}

// recorded is the verdict in the Pod's status about this container instance, so that an agent that
// has restarted continues from it.
func recorded(pod *v1.Pod, t Target, kind Kind) Outcome {
	s := cri.FindStatus(pod, t.Container)
	if s == nil || s.ContainerID == "" || cri.BareID(s.ContainerID) != cri.BareID(t.ContainerID) {
		return Unknown
	}
	if kind == Startup && ptr.Deref(s.Started, false) || kind == Readiness && s.Ready {
		return Success
	}
	return Unknown
}
