package simulated

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/probes"
)

// Prefix of the annotations that say what a simulated container does. One of the settings below
// follows it, and optionally a dot and the name of a container. Without a name a setting applies to
// spec.containers. With a name it applies to that container of any kind, and overrides the other.
const Prefix = "simulated.flyball.dev/"

// The settings.
const (
	PullAfter          = "pull-after"
	PullError          = "pull-error"
	StartAfter         = "start-after"
	StartError         = "start-error"
	ExitAfter          = "exit-after"
	ExitCode           = "exit-code"
	ExitReason         = "exit-reason"
	TerminationMessage = "termination-message"
	StopAfter          = "stop-after"
	Startup            = "startup"
	Readiness          = "readiness"
	Liveness           = "liveness"
	Log                = "log"
	Exec               = "exec"
	ExecCode           = "exec-code"
)

// never is a value of ExitAfter and StopAfter.
const never = "never"

const (
	// jobTakes is how long a container of a Job runs, or one that exits without ExitAfter.
	jobTakes = 100 * time.Millisecond
	// maxPull and maxStart limit the delays before the start of a container, maxRun those after it.
	// maxStart is less than the agent's timeout of the runtime.
	maxPull, maxStart, maxRun = time.Hour, 3 * time.Minute, 24 * time.Hour
)

// behaviour is what a container does.
type behaviour struct {
	pullAfter, startAfter time.Duration
	// pullError and startError are errors of the pull and the start, if not empty.
	pullError, startError string

	// exits says that it ends without being stopped, exitAfter after its start.
	exits      bool
	exitAfter  time.Duration
	exitCode   int32
	exitReason string
	message    string

	// stopAfter is how long it takes to end after SIGTERM. If obstinate, it never does.
	stopAfter time.Duration
	obstinate bool

	probes map[probes.Kind]verdict

	log      string
	exec     *string
	execCode int32
}

// verdict of a probe: ok once the container has run for after, and the opposite before.
type verdict struct {
	ok    bool
	after time.Duration
}

func (v verdict) at(running time.Duration) bool { return v.ok == (running >= v.after) }

// settings read the value of one annotation.
var settings = map[string]func(b *behaviour, value string) error{
	PullAfter:  func(b *behaviour, v string) (err error) { b.pullAfter, err = duration(v, maxPull); return err },
	PullError:  func(b *behaviour, v string) (err error) { b.pullError, err = text(v); return err },
	StartAfter: func(b *behaviour, v string) (err error) { b.startAfter, err = duration(v, maxStart); return err },
	StartError: func(b *behaviour, v string) (err error) { b.startError, err = text(v); return err },
	ExitAfter: func(b *behaviour, v string) (err error) {
		if b.exits, b.exitAfter = v != never, 0; b.exits {
			b.exitAfter, err = duration(v, maxRun)
		}
		return err
	},
	ExitCode:           func(b *behaviour, v string) (err error) { b.exitCode, err = code(v); return err },
	ExitReason:         func(b *behaviour, v string) (err error) { b.exitReason, err = reason(v); return err },
	TerminationMessage: func(b *behaviour, v string) error { b.message = v; return nil },
	StopAfter: func(b *behaviour, v string) (err error) {
		if b.obstinate = v == never; !b.obstinate {
			b.stopAfter, err = duration(v, maxRun)
		}
		return err
	},
	Startup:   func(b *behaviour, v string) (err error) { b.probes[probes.Startup], err = verdictOf(v); return err },
	Readiness: func(b *behaviour, v string) (err error) { b.probes[probes.Readiness], err = verdictOf(v); return err },
	Liveness:  func(b *behaviour, v string) (err error) { b.probes[probes.Liveness], err = verdictOf(v); return err },
	Log:       func(b *behaviour, v string) error { b.log = v; return nil },
	Exec:      func(b *behaviour, v string) error { b.exec = &v; return nil },
	ExecCode:  func(b *behaviour, v string) (err error) { b.execCode, err = code(v); return err },
}

// behaviourOf reads the behaviour of a container from the annotations of its Pod. An error names
// every invalid annotation of the Pod, for all containers.
func behaviourOf(pod *v1.Pod, container string) (behaviour, error) {
	does, errs := readAnnotations(pod, container)
	return does, errors.Join(errs...)
}

// CheckAnnotations returns an error that names every annotation of a Pod that is invalid for a
// simulated node, and what is allowed.
func CheckAnnotations(pod *v1.Pod) error {
	_, errs := readAnnotations(pod, "")
	return utilerrors.NewAggregate(errs)
}

func readAnnotations(pod *v1.Pod, container string) (does behaviour, errs []error) {
	does = byDefault(pod, container)
	_, kind := cri.FindContainer(pod, container)
	set := map[string]bool{}
	for _, a := range annotationsOf(pod) {
		b := &behaviour{probes: map[probes.Kind]verdict{}} // of another container
		if a.container == container || a.container == "" && kind == podutil.Containers {
			b, set[a.setting] = &does, true
		}
		if err := a.read(pod, b); err != nil {
			errs = append(errs, fmt.Errorf("annotation %s: %w", a.key, err))
		}
	}
	if (set[ExitCode] || set[ExitReason]) && !set[ExitAfter] && !does.exits {
		does.exits, does.exitAfter = true, jobTakes
	}
	return does, errs
}

// annotation is one with Prefix. container is empty if it applies to all regular ones.
type annotation struct{ key, setting, container string }

// annotationsOf returns the annotations with Prefix, those for one container last: they win.
func annotationsOf(pod *v1.Pod) []annotation {
	var found []annotation
	for key := range pod.Annotations {
		if rest, ours := strings.CutPrefix(key, Prefix); ours {
			setting, container, _ := strings.Cut(rest, ".")
			found = append(found, annotation{key, setting, container})
		}
	}
	slices.SortFunc(found, func(a, b annotation) int {
		return cmp.Or(cmp.Compare(a.container, b.container), cmp.Compare(a.key, b.key))
	})
	return found
}

func (a annotation) read(pod *v1.Pod, b *behaviour) error {
	read := settings[a.setting]
	if read == nil {
		return fmt.Errorf("there is no such setting; there are %s", strings.Join(slices.Sorted(maps.Keys(settings)), ", "))
	}
	if c, _ := cri.FindContainer(pod, a.container); a.container != "" && c == nil {
		return fmt.Errorf("the Pod has no container %q", a.container)
	}
	return read(b, pod.Annotations[a.key])
}

// byDefault is the behaviour without annotations: a regular container runs until it is stopped, or
// completes soon if the Pod belongs to a Job. An init container completes at once.
func byDefault(pod *v1.Pod, container string) behaviour {
	b := behaviour{probes: map[probes.Kind]verdict{
		probes.Startup: {ok: true}, probes.Readiness: {ok: true}, probes.Liveness: {ok: true},
	}}
	switch c, kind := cri.FindContainer(pod, container); {
	case kind == podutil.InitContainers && !podutil.IsRestartableInitContainer(c):
		b.exits = true
	case kind == podutil.Containers && ofJob(pod):
		b.exits, b.exitAfter = true, jobTakes
	}
	return b
}

func ofJob(pod *v1.Pod) bool {
	owner := metav1.GetControllerOf(pod)
	return pod.Spec.RestartPolicy != v1.RestartPolicyAlways && owner != nil && owner.Kind == "Job"
}

func duration(value string, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 1.5s or 2m", value)
	}
	if d < 0 || d > most {
		return 0, fmt.Errorf("%s is out of range: it must be from 0s to %s", value, most)
	}
	return d, nil
}

func code(value string) (int32, error) {
	n, err := strconv.ParseInt(value, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", value)
	}
	if n < 0 || n > 255 {
		return 0, fmt.Errorf("%s is out of range: an exit code is from 0 to 255", value)
	}
	return int32(n), nil
}

var reasons = regexp.MustCompile(`^[A-Z][A-Za-z0-9]{0,127}$`)

func reason(value string) (string, error) {
	if !reasons.MatchString(value) {
		return "", fmt.Errorf("%q is not one word in CamelCase, such as OOMKilled", value)
	}
	return value, nil
}

func text(value string) (string, error) {
	if value == "" {
		return "", errors.New("it is empty, and must be an error message")
	}
	return value, nil
}

// verdictOf reads "success", "failure", or one of them with " after DURATION".
func verdictOf(value string) (verdict, error) {
	word, after, late := strings.Cut(value, " after ")
	v := verdict{ok: word == "success"}
	if !v.ok && word != "failure" {
		return v, fmt.Errorf("%q is neither success nor failure, with or without \"after\" and a duration", value)
	}
	var err error
	if late {
		v.after, err = duration(after, maxRun)
	}
	return v, err
}
