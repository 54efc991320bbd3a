package simulated

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
	"k8s.io/utils/ptr"
)

// says sets annotations in pairs.
func says(pairs ...string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		for pair := range slices.Chunk(pairs, 2) {
			p.Annotations[Prefix+pair[0]] = pair[1]
		}
	}
}

func all(changes ...func(*v1.Pod)) func(*v1.Pod) {
	return func(p *v1.Pod) {
		for _, change := range changes {
			change(p)
		}
	}
}

func probed(kind string) func(*v1.Pod) {
	handlers := []v1.ProbeHandler{
		{Exec: &v1.ExecAction{Command: []string{"true"}}},
		{HTTPGet: &v1.HTTPGetAction{Path: "/", Port: portOf(80)}},
		{TCPSocket: &v1.TCPSocketAction{Port: portOf(80)}},
		{GRPC: &v1.GRPCAction{Port: 80}},
	}
	return func(p *v1.Pod) {
		for i, handler := range handlers {
			name := "main"
			if i > 0 {
				name = "c" + string(rune('0'+i))
				p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: name, Image: "example.org/app:1"})
			}
			probe := &v1.Probe{ProbeHandler: handler, PeriodSeconds: 1, FailureThreshold: 1}
			switch c := &p.Spec.Containers[i]; kind {
			case Startup:
				if name != "main" {
					probe.FailureThreshold = 30
				}
				c.StartupProbe = probe
			case Readiness:
				c.ReadinessProbe = probe
			case Liveness:
				c.LivenessProbe = probe
			}
		}
	}
}

func neverRestart(p *v1.Pod) { p.Spec.RestartPolicy = v1.RestartPolicyNever }

func first(p *v1.Pod) v1.ContainerStatus {
	if len(p.Status.ContainerStatuses) == 0 {
		return v1.ContainerStatus{}
	}
	for _, c := range p.Status.ContainerStatuses {
		if c.Name == "main" {
			return c
		}
	}
	return p.Status.ContainerStatuses[0]
}

func waits(reason, message string) func(*v1.Pod) bool {
	return func(p *v1.Pod) bool {
		w := first(p).State.Waiting
		return w != nil && w.Reason == reason && strings.Contains(w.Message, message)
	}
}

func terminated(code int32, reason string) func(*v1.Pod) bool {
	return func(p *v1.Pod) bool {
		end := first(p).State.Terminated
		return end != nil && end.ExitCode == code && end.Reason == reason
	}
}

// TestAnnotations tries each setting on a Pod of its own.
func TestAnnotations(t *testing.T) {
	r := start(t, 1)
	for name, tc := range map[string]struct {
		change func(*v1.Pod)
		want   func(*v1.Pod) bool
	}{
		"pull-error":      {says(PullError, "no such image"), waits("ImagePullBackOff", "no such image")},
		"pull-error-main": {says(PullError+".main", "gone"), waits("ErrImagePull", "gone")},
		"pull-after":      {says(PullAfter, "300ms"), tookAtLeast(300 * time.Millisecond)},
		"start-after":     {says(StartAfter, "300ms"), tookAtLeast(300 * time.Millisecond)},
		"start-error":     {all(neverRestart, says(StartError, "exec: no such file")), terminated(128, "StartError")},
		"exit-after":      {all(neverRestart, says(ExitAfter, "300ms")), ran(300 * time.Millisecond)},
		"exit-code":       {all(neverRestart, says(ExitCode, "3")), terminated(3, "Error")},
		"exit-reason":     {all(neverRestart, says(ExitCode, "137", ExitReason, "OOMKilled")), terminated(137, "OOMKilled")},
		"exit-zero":       {all(neverRestart, says(ExitCode, "0")), func(p *v1.Pod) bool { return p.Status.Phase == v1.PodSucceeded }},
		"crash-loop":      {says(ExitCode, "1", ExitAfter, "0s"), waits("CrashLoopBackOff", "")},
		"termination-message": {all(neverRestart, says(ExitCode, "1", TerminationMessage, "last words")), func(p *v1.Pod) bool {
			return terminated(1, "Error")(p) && first(p).State.Terminated.Message == "last words"
		}},
		"message-from-log": {all(neverRestart, says(ExitCode, "1", Log, "one\ntwo\n"), func(p *v1.Pod) {
			p.Spec.Containers[0].TerminationMessagePolicy = v1.TerminationMessageFallbackToLogsOnError
		}), func(p *v1.Pod) bool {
			return terminated(1, "Error")(p) && first(p).State.Terminated.Message == "one\ntwo\n"
		}},
		"startup":         {all(probed(Startup), says(Startup, "success after 1s", Startup+".main", "success")), isReady},
		"startup-fails":   {all(probed(Startup), says(Startup+".main", "failure", StopAfter, "0s")), restarted},
		"readiness":       {all(probed(Readiness), says(Readiness, "success after 1s")), isReady},
		"readiness-fails": {all(probed(Readiness), says(Readiness+".main", "failure")), onlyUnready("main")},
		"liveness":        {all(probed(Liveness), says(Liveness, "failure after 1s")), restarted},
		"init":            {withInit, isReady},
		"init-fails":      {all(withInit, neverRestart, says(ExitCode+".init", "4")), func(p *v1.Pod) bool { return p.Status.Phase == v1.PodFailed }},
		"job":             {asJob, func(p *v1.Pod) bool { return p.Status.Phase == v1.PodSucceeded }},
		"job-fails":       {all(asJob, says(ExitCode, "1")), func(p *v1.Pod) bool { return p.Status.Phase == v1.PodFailed }},
		"out-of-range":    {says(ExitCode, "256"), waits("CreateContainerConfigError", Prefix+"exit-code: 256 is out of range")},
		"unknown":         {says("raediness", "x"), waits("CreateContainerConfigError", Prefix+"raediness: there is no such setting")},
		"non-root":        {func(p *v1.Pod) { p.Spec.SecurityContext = &v1.PodSecurityContext{RunAsNonRoot: new(true)} }, isReady},
		"never-pull": {func(p *v1.Pod) {
			p.Spec.Containers[0].ImagePullPolicy, p.Spec.Containers[0].Image = v1.PullNever, "local"
		}, isReady},
		"never-pull-error":  {all(says(PullError, "x"), func(p *v1.Pod) { p.Spec.Containers[0].ImagePullPolicy = v1.PullNever }), waits("ErrImageNeverPull", "")},
		"host-network":      {func(p *v1.Pod) { p.Spec.HostNetwork = true }, func(p *v1.Pod) bool { return isReady(p) && p.Status.PodIP == p.Status.HostIP }},
		"post-start-hook":   {hook(false), isReady},
		"volumes":           {withVolumes, isReady},
		"missing-configmap": {missing, waits("ContainerCreating", "")},
	} {
		t.Run(name, func(t *testing.T) {
			r := &rig{t: t, prefix: r.prefix, namespace: r.namespace}
			r.pod(name, tc.change)
			r.wait(name, "as wanted", tc.want)
			r.delete(name)
			r.gone(name)
		})
	}
}

func (r *rig) delete(name string) {
	r.t.Helper()
	if err := client.CoreV1().Pods(r.namespace).Delete(r.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

func tookAtLeast(d time.Duration) func(*v1.Pod) bool {
	begun := time.Now()
	return func(p *v1.Pod) bool { return isReady(p) && time.Since(begun) > d }
}

func ran(d time.Duration) func(*v1.Pod) bool {
	begun := time.Now()
	return func(p *v1.Pod) bool { return p.Status.Phase == v1.PodSucceeded && time.Since(begun) > d }
}

func restarted(p *v1.Pod) bool { return first(p).RestartCount > 0 }

func onlyUnready(name string) func(*v1.Pod) bool {
	return func(p *v1.Pod) bool {
		ready := 0
		for _, c := range p.Status.ContainerStatuses {
			if c.Ready {
				ready++
			} else if c.Name != name {
				return false
			}
		}
		return ready > 0 && ready == len(p.Status.ContainerStatuses)-1
	}
}

func withInit(p *v1.Pod) {
	always := v1.ContainerRestartPolicyAlways
	p.Spec.InitContainers = []v1.Container{{Name: "init", Image: "example.org/init"}, {Name: "sidecar", Image: "example.org/sidecar", RestartPolicy: &always}}
}

func asJob(p *v1.Pod) {
	neverRestart(p)
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "j", UID: "1", Controller: new(true)}}
}

func hook(pre bool) func(*v1.Pod) {
	return func(p *v1.Pod) {
		h := &v1.LifecycleHandler{HTTPGet: &v1.HTTPGetAction{Path: "/", Port: portOf(80)}}
		p.Spec.Containers[0].Lifecycle = &v1.Lifecycle{PostStart: h}
		if pre {
			p.Spec.Containers[0].Lifecycle = &v1.Lifecycle{PreStop: &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"true"}}}}
		}
	}
}

func mounted(p *v1.Pod, volumes map[string]v1.VolumeSource) {
	for name, source := range volumes {
		p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{Name: name, VolumeSource: source})
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, v1.VolumeMount{Name: name, MountPath: "/" + name, SubPath: "sub"})
	}
}

func withVolumes(p *v1.Pod) {
	mounted(p, map[string]v1.VolumeSource{
		"empty": {EmptyDir: &v1.EmptyDirVolumeSource{}}, "memory": {EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}},
		"host": {HostPath: &v1.HostPathVolumeSource{Path: "/no/such/directory", Type: ptr.To(v1.HostPathDirectory)}},
		"down": {DownwardAPI: &v1.DownwardAPIVolumeSource{Items: []v1.DownwardAPIVolumeFile{{Path: "x", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}},
	})
}

func missing(p *v1.Pod) {
	mounted(p, map[string]v1.VolumeSource{"config": {ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "nowhere"}}}})
}

// TestMissingConfigMap: what a real node waits for, a simulated one does.
func TestMissingConfigMap(t *testing.T) {
	r := start(t, 1)
	r.pod("web", missing)
	r.event("web", "FailedMount", `MountVolume.SetUp failed for volume "config" : configmap "nowhere" not found`)
	if _, err := client.CoreV1().ConfigMaps(r.namespace).Create(t.Context(), &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "nowhere"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.wait("web", "ready", isReady)
}

// TestOutOfRange: the Event names what is wrong, too.
func TestOutOfRange(t *testing.T) {
	r := start(t, 1)
	r.pod("web", says(ExitAfter, "25h"))
	r.event("web", "Failed", "annotation "+Prefix+"exit-after: 25h is out of range: it must be from 0s to 24h0m0s")
	patch := []byte(`{"metadata":{"annotations":{"` + Prefix + `exit-after":"24h"}}}`)
	if _, err := client.CoreV1().Pods(r.namespace).Patch(t.Context(), "web", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	r.wait("web", "ready", isReady)
}

// event waits until an Event about a Pod says something.
func (r *rig) event(pod, reason, message string) {
	r.t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		list, err := client.CoreV1().Events(r.namespace).List(r.t.Context(), metav1.ListOptions{})
		if err != nil {
			r.t.Fatal(err)
		}
		if slices.ContainsFunc(list.Items, func(e v1.Event) bool {
			return e.InvolvedObject.Name == pod && e.Reason == reason && strings.Contains(e.Message, message)
		}) {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("no Event %s says %q: %v", reason, message, list.Items)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestAnnotationsChange: they can be changed while the container runs.
func TestAnnotationsChange(t *testing.T) {
	r := start(t, 1)
	r.pod("web", probed(Readiness))
	r.wait("web", "ready", isReady)
	patch := func(setting, value string) {
		t.Helper()
		patch := []byte(`{"metadata":{"annotations":{"` + Prefix + setting + `":"` + value + `"}}}`)
		if _, err := client.CoreV1().Pods(r.namespace).Patch(t.Context(), "web", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	patch(Readiness, "failure")
	r.wait("web", "not ready", func(p *v1.Pod) bool { return !isReady(p) })
	patch(Readiness, "success")
	r.wait("web", "ready", isReady)
	patch(ExitAfter+".main", "0s")
	r.wait("web", "restarted", restarted)
}

// TestStop: a container that takes longer than its Pod's grace is killed, one that
// does not ends by itself.
func TestStop(t *testing.T) {
	r := start(t, 1)
	for name, tc := range map[string]struct {
		change     func(*v1.Pod)
		least, max time.Duration
	}{
		"at-once":       {nil, 0, 10 * time.Second},
		"in-a-moment":   {says(StopAfter, "1s"), time.Second, 20 * time.Second},
		"never":         {says(StopAfter, "never"), 3 * time.Second, 20 * time.Second},
		"pre-stop-hook": {hook(true), 0, 10 * time.Second},
		"starting":      {says(StartAfter, "2m"), 0, 20 * time.Second},
		"pulling":       {says(PullAfter, "1h"), 0, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			r := &rig{t: t, prefix: r.prefix, namespace: r.namespace}
			r.pod(name, all(func(p *v1.Pod) {
				p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](3)
				if name == "pulling" || name == "starting" {
					p.Spec.Containers[0].Image = "example.org/" + name
				}
			}, func(p *v1.Pod) {
				if tc.change != nil {
					tc.change(p)
				}
			}))
			switch name {
			case "pulling":
				r.event(name, "Pulling", "")
			case "starting":
				r.event(name, "Created", "")
			default:
				r.wait(name, "ready", isReady)
			}
			begun := time.Now()
			r.delete(name)
			r.gone(name)
			took := time.Since(begun)
			t.Logf("gone after %s", took)
			if took < tc.least || took > tc.max {
				t.Errorf("it went away after %s", took)
			}
		})
	}
}

func TestLogsAndExec(t *testing.T) {
	r := start(t, 2)
	r.pod("web", says(Log, "one\ntwo\n", Exec+".main", "Linux simulated\n"))
	r.pod("dumb", says(Log, "tick\n"))
	r.wait("web", "ready", isReady)
	r.wait("dumb", "ready", isReady)

	if got := r.logs("web", v1.PodLogOptions{}); got != "one\ntwo\n" {
		t.Errorf("logs %q", got)
	}
	if got := r.logs("web", v1.PodLogOptions{TailLines: ptr.To[int64](1)}); got != "two\n" {
		t.Errorf("last line %q", got)
	}
	if out, _, err := r.exec("web", "uname"); err != nil || out != "Linux simulated\n" {
		t.Errorf("exec: %q, %v", out, err)
	}
	_, errOut, err := r.exec("dumb", "uname", "-a")
	var exit utilexec.CodeExitError
	if !errors.As(err, &exit) || exit.Code != cannotExecute || !strings.Contains(errOut, "is simulated and executes nothing") {
		t.Errorf("exec without an annotation: %q, %v", errOut, err)
	}

	// A log that is followed ends with its container.
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	stream, err := client.CoreV1().Pods(r.namespace).GetLogs("dumb", &v1.PodLogOptions{Follow: true}).Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	line := make([]byte, len("tick\n"))
	if _, err := io.ReadFull(stream, line); err != nil || string(line) != "tick\n" {
		t.Fatalf("followed log %q, %v", line, err)
	}
	r.delete("dumb")
	if rest, err := io.ReadAll(stream); err != nil || len(rest) > 0 {
		t.Errorf("the rest of the followed log: %q, %v", rest, err)
	}
}

func (r *rig) logs(name string, o v1.PodLogOptions) string {
	r.t.Helper()
	stream, err := client.CoreV1().Pods(r.namespace).GetLogs(name, &o).Stream(context.Background())
	if err != nil {
		r.t.Error(err)
		return ""
	}
	defer stream.Close()
	text, err := io.ReadAll(stream)
	if err != nil {
		r.t.Error(err)
	}
	return string(text)
}

func (r *rig) exec(name string, command ...string) (out, errOut string, err error) {
	r.t.Helper()
	req := client.CoreV1().RESTClient().Post().Resource("pods").Namespace(r.namespace).Name(name).SubResource("exec").
		VersionedParams(&v1.PodExecOptions{Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(admin, "GET", req.URL().String())
	if err != nil {
		r.t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	err = executor.StreamWithContext(r.t.Context(), remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr})
	return stdout.String(), stderr.String(), err
}

// TestResize: what a running Pod is resized to, its status says.
func TestResize(t *testing.T) {
	r := start(t, 1)
	r.pod("web", func(p *v1.Pod) {
		p.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceCPU: resource.MustParse("100m")}
	})
	r.wait("web", "ready", isReady)
	patch := []byte(`{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":"200m"}}}]}}`)
	if _, err := client.CoreV1().Pods(r.namespace).Patch(t.Context(), "web", types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "resize"); err != nil {
		t.Fatal(err)
	}
	r.wait("web", "resized", func(p *v1.Pod) bool {
		now := first(p).Resources
		return now != nil && now.Requests.Cpu().MilliValue() == 200
	})
}
