package probes

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/probe"
	"pgregory.net/rapid"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// trace plays a probe: an attempt begins whenever one is due, and answers come from the
// list. It returns when attempts began, in milliseconds since the container
// started, and the verdict after each answer.
func trace(s state, answers ...probe.Result) (tried []int64, verdicts []probe.Result) {
	for _, a := range answers {
		at, ok := next(s)
		if !ok {
			break
		}
		s = observe(s, a, at)
		tried, verdicts = append(tried, at.Sub(t0).Milliseconds()), append(verdicts, s.verdict)
	}
	return tried, verdicts
}

func TestPlan(t *testing.T) {
	const ok, no, unknown = probe.Success, probe.Failure, probe.Unknown
	tests := map[string]struct {
		reason   string
		kind     Kind
		spec     v1.Probe
		was      probe.Result
		answers  []probe.Result
		tried    []int64
		verdicts []probe.Result
	}{
		"readiness is probed at once": {
			reason: "A container without initialDelaySeconds is ready as soon as it says so, not a period later.",
			kind:   Readiness, answers: []probe.Result{ok, ok},
			tried: []int64{0, 10_000}, verdicts: []probe.Result{ok, ok},
		},
		"readiness is probed again soon after the start": {
			reason: "The server did not listen yet. The pause doubles up to the period.",
			kind:   Readiness, spec: v1.Probe{PeriodSeconds: 1}, answers: []probe.Result{no, no, no, no, no, no, ok, ok},
			tried:    []int64{0, 100, 300, 700, 1500, 2500, 3500, 4500},
			verdicts: []probe.Result{no, no, no, no, no, no, ok, ok},
		},
		"readiness waits for its initial delay": {
			reason: "The user says that it cannot be ready sooner.",
			kind:   Readiness, spec: v1.Probe{InitialDelaySeconds: 5}, answers: []probe.Result{ok},
			tried: []int64{5000}, verdicts: []probe.Result{ok},
		},
		"readiness after a success keeps to its period": {
			reason: "Quick retries are for the start only.",
			kind:   Readiness, spec: v1.Probe{FailureThreshold: 2}, answers: []probe.Result{no, ok, no, no, ok},
			tried:    []int64{0, 100, 10_100, 20_100, 30_100},
			verdicts: []probe.Result{no, ok, ok, no, ok},
		},
		"successThreshold": {
			reason: "Two in a row are needed, a period apart.",
			kind:   Readiness, spec: v1.Probe{SuccessThreshold: 2}, answers: []probe.Result{ok, no, ok, ok},
			tried: []int64{0, 10_000, 20_000, 30_000}, verdicts: []probe.Result{no, no, no, ok},
		},
		"readiness of an earlier agent": {
			reason: "The status says ready: it stays so until proven otherwise, failureThreshold included.",
			kind:   Readiness, was: ok, answers: []probe.Result{no, no, no},
			tried: []int64{0, 10_000, 20_000}, verdicts: []probe.Result{ok, ok, no},
		},
		"liveness rests after its verdict": {
			reason: "The container is about to be stopped.",
			kind:   Liveness, answers: []probe.Result{no, ok, no, no, no, no},
			tried: []int64{0, 10_000, 20_000, 30_000, 40_000}, verdicts: []probe.Result{ok, ok, ok, ok, no},
		},
		"an attempt that could not be made does not count": {
			reason: "A runtime that does not answer is no reason to restart containers.",
			kind:   Liveness, spec: v1.Probe{FailureThreshold: 2}, answers: []probe.Result{no, unknown, unknown, no},
			tried: []int64{0, 10_000, 20_000, 30_000}, verdicts: []probe.Result{ok, ok, ok, no},
		},
		"startup rests after it passed": {
			reason: "Passing once is all it is for.",
			kind:   Startup, answers: []probe.Result{no, ok, no},
			tried: []int64{0, 10_000}, verdicts: []probe.Result{unknown, ok},
		},
		"startup rests after it failed": {
			reason: "failureThreshold times period is the time that the container gets; no quick retries shorten it.",
			kind:   Startup, answers: []probe.Result{no, no, no, ok},
			tried: []int64{0, 10_000, 20_000}, verdicts: []probe.Result{unknown, unknown, no},
		},
		"startup of an earlier agent": {
			reason: "It passed already; running it again could restart a healthy container.",
			kind:   Startup, was: ok, answers: []probe.Result{no},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			was := tc.was
			if was == "" {
				was = probe.Unknown
			}
			s := begin(tc.kind, thresholdsOf(&tc.spec), t0, was)
			s.started = true
			tried, verdicts := trace(s, tc.answers...)
			if d := cmp.Diff(tc.tried, tried); d != "" {
				t.Errorf("%s\ntried at (-want +got):\n%s", tc.reason, d)
			}
			if d := cmp.Diff(tc.verdicts, verdicts); d != "" {
				t.Errorf("%s\nverdicts (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}

func TestStartupHoldsTheOthersBack(t *testing.T) {
	for _, kind := range []Kind{Liveness, Readiness} {
		if at, ok := next(begin(kind, thresholdsOf(&v1.Probe{}), t0, probe.Unknown)); ok {
			t.Errorf("%s is due at %s although the container has not started", kind, at)
		}
	}
}

// Whatever the answers: attempts move forward in time and are never further apart
// than the period, a verdict flips only after its threshold of equal answers, and
// a resting probe keeps its verdict.
func TestPlanInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := v1.Probe{
			InitialDelaySeconds: rapid.Int32Range(0, 5).Draw(t, "delay"),
			PeriodSeconds:       rapid.Int32Range(0, 20).Draw(t, "period"),
			FailureThreshold:    rapid.Int32Range(0, 4).Draw(t, "failure"),
			SuccessThreshold:    rapid.Int32Range(0, 4).Draw(t, "success"),
		}
		kind := rapid.SampledFrom([]Kind{Startup, Liveness, Readiness}).Draw(t, "kind")
		was := rapid.SampledFrom([]probe.Result{probe.Unknown, probe.Success}).Draw(t, "was")
		s := begin(kind, thresholdsOf(&spec), t0, was)
		s.started = s.started || kind != Startup
		run, last := 0, probe.Unknown
		for range rapid.IntRange(1, 40).Draw(t, "answers") {
			at, ok := next(s)
			if !ok {
				return
			}
			if at.Before(t0.Add(s.spec.initialDelay)) || at.Before(s.tried) {
				t.Fatalf("due at %s, before its time", at)
			}
			if !s.tried.IsZero() && at.Sub(s.tried) > s.spec.period {
				t.Fatalf("%s between two attempts, the period is %s", at.Sub(s.tried), s.spec.period)
			}
			got := rapid.SampledFrom([]probe.Result{probe.Success, probe.Failure, probe.Unknown}).Draw(t, "answer")
			before := s.verdict
			s = observe(s, got, at)
			if got != probe.Unknown {
				if got != last {
					run, last = 0, got
				}
				run++
			}
			if before == s.verdict {
				continue
			}
			need := s.spec.success
			if s.verdict == probe.Failure {
				need = s.spec.failure
			}
			if s.verdict != got || run < need {
				t.Fatalf("%s became %s after %d answers of %s, it takes %d", kind, s.verdict, run, got, need)
			}
		}
	})
}

func TestProbed(t *testing.T) {
	all := v1.Container{Name: "c", StartupProbe: &v1.Probe{}, LivenessProbe: &v1.Probe{}, ReadinessProbe: &v1.Probe{}}
	now := metav1.NewTime(t0)
	ending := &v1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &now}}
	if got := probed(ending, &all); len(got) != 1 || got[Readiness] == nil {
		t.Errorf("a pod that is being deleted keeps its readiness probe and no other; got %v", got)
	}
	if got := probed(&v1.Pod{}, &all); len(got) != 3 {
		t.Errorf("a running pod has all its probes; got %v", got)
	}
}

func TestContainersThatCanHaveProbes(t *testing.T) {
	always := v1.ContainerRestartPolicyAlways
	pod := &v1.Pod{Spec: v1.PodSpec{
		Containers:     []v1.Container{{Name: "main"}},
		InitContainers: []v1.Container{{Name: "init"}, {Name: "sidecar", RestartPolicy: &always}},
	}}
	for name, want := range map[string]bool{"main": true, "sidecar": true, "init": false, "other": false} {
		if got := probeable(pod, name) != nil; got != want {
			t.Errorf("%s can have probes: got %t, want %t", name, got, want)
		}
	}
}
