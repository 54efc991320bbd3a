package probes

import (
	"time"

	v1 "k8s.io/api/core/v1"
)

// Outcome is what a probe has found so far.
type Outcome string

const (
	// Unknown means that the probe has not come to a verdict yet.
	Unknown Outcome = "Unknown"
	// Success means that the probe passed, or that the container has no such probe.
	Success Outcome = "Success"
	// Failure means that the probe failed as often as its threshold asks.
	Failure Outcome = "Failure"
)

// Kind names one of the three probes of a container, spelled as upstream's
// Events and metrics spell it.
type Kind string

const (
	// Startup holds back the other two until it has passed once.
	Startup Kind = "Startup"
	// Liveness has the container restarted when it fails.
	Liveness Kind = "Liveness"
	// Readiness takes the Pod out of its Services when it fails.
	Readiness Kind = "Readiness"
)

// firstRetry is how soon a readiness probe is asked again when its very first
// answer, on a container that has only just started, was no. A server needs some
// milliseconds until it listens; without this it would be ready one whole period
// later. The pause doubles until it reaches the period.
const firstRetry = 100 * time.Millisecond

// state is everything known about one probe of one container instance.
type state struct {
	kind  Kind
	spec  thresholds
	begun time.Time // when the container started

	// notBefore delays the first attempt after a restart of the agent, so that
	// the probes of a full node do not all start in the same moment.
	notBefore time.Time

	started bool // the startup probe passed, or there is none
	held    bool // a verdict was reached that only a new container can change

	verdict Outcome
	message string

	last    Outcome   // of the last attempt
	run     int       // how many attempts in a row ended so
	asked   time.Time // when the last attempt began; zero: never
	hurried int       // quick retries so far; -1: no more
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

// begin is the state of a probe whose container started at begun. was is the
// verdict that the Pod's status already records for this very container, Unknown
// if it records none.
func begin(kind Kind, spec thresholds, begun time.Time, was Outcome) state {
	s := state{kind: kind, spec: spec, begun: begun, verdict: was}
	if was == Success {
		s.hurried = -1
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

// next says when the probe is due. ok is false while it rests: until the startup
// probe has passed, or for good.
func next(s state) (at time.Time, ok bool) {
	if s.held || (s.kind != Startup && !s.started) {
		return time.Time{}, false
	}
	if s.asked.IsZero() {
		at = s.begun.Add(s.spec.initialDelay)
		if at.Before(s.notBefore) {
			at = s.notBefore
		}
		return at, true
	}
	return s.asked.Add(s.interval()), true
}

// hurrying says whether the probe is still in the quick retries after the start
// of its container. Failures in this phase are neither counted nor reported.
func (s state) hurrying() bool {
	return s.kind == Readiness && s.hurried >= 0 && s.interval() < s.spec.period
}

func (s state) interval() time.Duration {
	if s.kind != Readiness || s.hurried < 0 || s.hurried > 16 {
		return s.spec.period
	}
	return min(firstRetry<<max(s.hurried-1, 0), s.spec.period)
}

// observe is the state after an attempt that began at the given time. An attempt
// that could not be carried out (Unknown) changes no verdict.
func observe(s state, got Outcome, message string, at time.Time) state {
	quick := s.hurrying()
	s.asked = at
	if got == Success {
		s.hurried = -1
	} else if s.hurried >= 0 {
		s.hurried++
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
		// Either verdict stands until there is a new container: asking further
		// would only run commands in one that is about to be stopped.
		s.held = true
		s.started = got == Success
	case s.kind == Liveness && got == Failure:
		s.held = true
	}
	return s
}

// Result is what the probes of one container say, taken together.
// A container is started when Startup is Success, ready when Startup and
// Readiness are, and is to be restarted when Startup or Liveness is Failure.
type Result struct {
	Startup, Liveness, Readiness Outcome
	// Message is what the probe said that made the container fail, or the
	// last one that failed.
	Message string
	// ContainerID is the instance that was asked: a caller that has already
	// replaced it must not act on the old one's result.
	ContainerID string
	// TerminationGracePeriodSeconds is the one of the failed startup or liveness
	// probe, nil if it sets none and the Pod's holds.
	TerminationGracePeriodSeconds *int64
}

// Restart says whether the container has to be restarted, and which probe says so.
func (r Result) Restart() (Kind, bool) {
	switch {
	case r.Startup == Failure:
		return Startup, true
	case r.Liveness == Failure:
		return Liveness, true
	}
	return "", false
}

// Ready says whether the container may get traffic.
func (r Result) Ready() bool { return r.Startup == Success && r.Readiness == Success }

// probed lists the probes that a container of a pod has. Init containers that
// end before the others start have none; sidecars do. A pod that is being deleted
// keeps only readiness: nothing is restarted any more, but it must leave its
// Services when its server stops answering.
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

// containerNamed finds a container that can have probes.
func containerNamed(pod *v1.Pod, name string) *v1.Container {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.Name == name && c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways {
			return c
		}
	}
	return nil
}

// recorded is what the Pod's status says about this very container instance, so
// that an agent that has just started goes on where the last one ended.
func recorded(pod *v1.Pod, t Target, kind Kind) Outcome {
	for _, list := range [][]v1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for _, s := range list {
			if s.Name != t.Container || !sameContainer(s.ContainerID, t.ContainerID) {
				continue
			}
			switch {
			case kind == Startup && s.Started != nil && *s.Started:
				return Success
			case kind == Readiness && s.Ready:
				return Success
			}
		}
	}
	return Unknown
}
