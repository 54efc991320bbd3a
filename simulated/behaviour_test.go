package simulated

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flyball.dev/kubelet/probes"
)

func podSaying(annotations map[string]string, change func(*v1.Pod)) *v1.Pod {
	always := v1.ContainerRestartPolicyAlways
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"example.org/other": "thing"}},
		Spec: v1.PodSpec{
			RestartPolicy:  v1.RestartPolicyAlways,
			InitContainers: []v1.Container{{Name: "init"}, {Name: "sidecar", RestartPolicy: &always}},
			Containers:     []v1.Container{{Name: "main"}, {Name: "second"}},
		},
	}
	for key, value := range annotations {
		p.Annotations[Prefix+key] = value
	}
	if change != nil {
		change(p)
	}
	return p
}

func jobPod(p *v1.Pod) {
	p.Spec.RestartPolicy = v1.RestartPolicyNever
	p.OwnerReferences = []metav1.OwnerReference{{Kind: "Job", Name: "j", Controller: new(true)}}
}

func TestBehaviour(t *testing.T) {
	answer := "hello"
	forEver := func(change func(*behaviour)) behaviour {
		b := behaviour{probes: map[probes.Kind]verdict{
			probes.Startup: {ok: true}, probes.Readiness: {ok: true}, probes.Liveness: {ok: true},
		}}
		if change != nil {
			change(&b)
		}
		return b
	}
	for name, tc := range map[string]struct {
		reason    string
		says      map[string]string
		change    func(*v1.Pod)
		container string
		want      behaviour
	}{
		"Nothing":      {reason: "a container of a Deployment, say, runs on", container: "main", want: forEver(nil)},
		"Init":         {reason: "or the Pod would never start", container: "init", want: forEver(func(b *behaviour) { b.exits = true })},
		"Sidecar":      {reason: "is to run beside the others", container: "sidecar", want: forEver(nil)},
		"Job":          {reason: "finishes", change: jobPod, container: "main", want: forEver(func(b *behaviour) { b.exits, b.exitAfter = true, jobTakes })},
		"JobSidecar":   {reason: "is ended with the Pod", change: jobPod, container: "sidecar", want: forEver(nil)},
		"JobForEver":   {reason: "unless it is to run on", change: jobPod, says: map[string]string{ExitAfter: "never"}, container: "main", want: forEver(nil)},
		"NotOurs":      {reason: "a setting without a name is for the regular containers", says: map[string]string{ExitAfter: "never"}, container: "init", want: forEver(func(b *behaviour) { b.exits = true })},
		"Named":        {reason: "goes before the general one", says: map[string]string{ExitCode: "1", ExitCode + ".main": "2"}, container: "main", want: forEver(func(b *behaviour) { b.exits, b.exitAfter, b.exitCode = true, jobTakes, 2 })},
		"NamedOther":   {reason: "and does not touch others", says: map[string]string{ExitCode + ".second": "2"}, container: "main", want: forEver(nil)},
		"NamedSidecar": {reason: "of whatever kind", says: map[string]string{Log + ".sidecar": "x"}, container: "sidecar", want: forEver(func(b *behaviour) { b.log = "x" })},
		"Everything": {
			reason: "each setting has its place", container: "main",
			says: map[string]string{
				PullAfter: "1s", PullError: "no such image", StartAfter: "2s", StartError: "no such file", ExitAfter: "3s", ExitCode: "137",
				ExitReason: "OOMKilled", TerminationMessage: "bye", StopAfter: "4s", Startup: "success after 5s", Readiness: "failure",
				Liveness: "failure after 6s", Log: "a\nb\n", Exec: "hello", ExecCode: "7",
			},
			want: behaviour{
				pullAfter: time.Second, pullError: "no such image", startAfter: 2 * time.Second, startError: "no such file",
				exits: true, exitAfter: 3 * time.Second, exitCode: 137, exitReason: "OOMKilled", message: "bye", stopAfter: 4 * time.Second,
				probes: map[probes.Kind]verdict{probes.Startup: {true, 5 * time.Second}, probes.Readiness: {}, probes.Liveness: {false, 6 * time.Second}},
				log:    "a\nb\n", exec: &answer, execCode: 7,
			},
		},
		"Obstinate": {reason: "ignores SIGTERM", says: map[string]string{StopAfter: "never"}, container: "main", want: forEver(func(b *behaviour) { b.obstinate = true })},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := behaviourOf(podSaying(tc.says, tc.change), tc.container)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(behaviour{}, verdict{})); diff != "" {
				t.Errorf("%s\n-want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestBehaviourRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		key, value string
		want       []string // what the error says besides the annotation
	}{
		"Duration":       {PullAfter, "soon", []string{`"soon" is not a duration`}},
		"PullTooLong":    {PullAfter, "61m", []string{"61m is out of range: it must be from 0s to 1h0m0s"}},
		"StartTooLong":   {StartAfter, "4m", []string{"4m is out of range: it must be from 0s to 3m0s"}},
		"Negative":       {ExitAfter, "-1s", []string{"-1s is out of range"}},
		"StopTooLong":    {StopAfter, "25h", []string{"25h is out of range: it must be from 0s to 24h0m0s"}},
		"CodeTooHigh":    {ExitCode, "256", []string{"256 is out of range: an exit code is from 0 to 255"}},
		"CodeTooLow":     {ExecCode, "-1", []string{"-1 is out of range"}},
		"CodeNoNumber":   {ExitCode + ".main", "one", []string{`"one" is not a number`}},
		"Reason":         {ExitReason, "out of memory", []string{`"out of memory" is not one word in CamelCase`}},
		"Verdict":        {Readiness, "no", []string{`"no" is neither success nor failure`}},
		"VerdictAfter":   {Startup, "success after lunch", []string{`"lunch" is not a duration`}},
		"VerdictTooLate": {Liveness, "failure after 25h", []string{"25h is out of range"}},
		"PullNoError":    {PullError, "", []string{"it is empty"}},
		"StartNoError":   {StartError, "", []string{"it is empty"}},
		"Unknown":        {"raediness", "success", []string{"there is no such setting; there are", Readiness}},
		"NoContainer":    {Log + ".mian", "x", []string{`the Pod has no container "mian"`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := behaviourOf(podSaying(map[string]string{tc.key: tc.value}, nil), "main")
			if err == nil {
				t.Fatal("it was taken")
			}
			for _, want := range append(tc.want, "annotation "+Prefix+tc.key+": ") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

func TestBehaviourRefusedForAll(t *testing.T) {
	_, err := behaviourOf(podSaying(map[string]string{ExitCode: "999", StopAfter + ".second": "x"}, nil), "main")
	for _, want := range []string{ExitCode, StopAfter + ".second"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
}

func TestVerdict(t *testing.T) {
	for name, tc := range map[string]struct {
		says    string
		running time.Duration
		want    bool
	}{
		"Success":      {"success", 0, true},
		"Failure":      {"failure", time.Hour, false},
		"NotYet":       {"success after 5s", 4 * time.Second, false},
		"Now":          {"success after 5s", 5 * time.Second, true},
		"StillWell":    {"failure after 5s", 4 * time.Second, true},
		"NoLongerWell": {"failure after 5s", 6 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := verdictOf(tc.says)
			if err != nil {
				t.Fatal(err)
			}
			if got := v.at(tc.running); got != tc.want {
				t.Errorf("%q after %s is %t", tc.says, tc.running, got)
			}
		})
	}
}
