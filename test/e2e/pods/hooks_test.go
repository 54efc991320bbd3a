package pods

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"flyball.dev/test/e2e/internal/cluster"
)

// TestHooks has what a container does after its start and before its end, with a directory of the host as witness.
func TestHooks(t *testing.T) {
	ns := cluster.Namespace(t)
	dir := t.TempDir()
	command := func(args ...string) *corev1.LifecycleHandler {
		return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: append([]string{"/bin/toolbox"}, args...)}}
	}
	c := container("sleep", "inf")
	c.VolumeMounts = []corev1.VolumeMount{{Name: "witness", MountPath: "/witness"}}
	c.Lifecycle = &corev1.Lifecycle{PostStart: command("write", "/witness/started", "yes"), PreStop: command("write", "/witness/ending", "yes")}
	spec := pod(c)
	spec.Volumes = []corev1.Volume{{Name: "witness", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}
	long := int64(30)
	spec.TerminationGracePeriodSeconds = &long
	cluster.Run(t, ns, "hooks", spec)
	cluster.Await(t, ns, "hooks", cluster.Ready)
	if _, err := os.Stat(filepath.Join(dir, "started")); err != nil {
		t.Errorf("the container is Ready before its hook ran: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ending")); err == nil {
		t.Error("the hook before the end ran at the start")
	}
	cluster.Kubectl(t, "delete", "pod", "-n", ns, "hooks")
	if _, err := os.Stat(filepath.Join(dir, "ending")); err != nil {
		t.Errorf("the Pod is gone and its hook did not run: %v", err)
	}

	failing := container("sleep", "inf")
	failing.Lifecycle = &corev1.Lifecycle{PostStart: command("false")}
	cluster.Run(t, ns, "failing", pod(failing))
	cluster.AwaitEvent(t, ns, "failing", "FailedPostStartHook")
	cluster.Await(t, ns, "failing", restarted(1))
}

// TestActiveDeadline ends a Pod that would run for ever.
func TestActiveDeadline(t *testing.T) {
	ns := cluster.Namespace(t)
	spec := pod(container("sleep", "inf"))
	second := int64(1)
	spec.ActiveDeadlineSeconds = &second
	uid := string(cluster.Run(t, ns, "deadline", spec).UID)
	p := cluster.Await(t, ns, "deadline", cluster.Phase(corev1.PodFailed))
	if p.Status.Reason != "DeadlineExceeded" {
		t.Errorf("it failed for %q: %s", p.Status.Reason, p.Status.Message)
	}
	cluster.Eventually(t, cluster.Soon, func() error {
		if len(cluster.ProcessesOf(uid, "toolbox")) > 0 {
			return errors.New("its processes run on")
		}
		return nil
	})
}

// TestDebug looks into a running Pod with a container of its own.
func TestDebug(t *testing.T) {
	ns := cluster.Namespace(t)
	cluster.Run(t, ns, "box", pod(container("serve", "http=:8080")))
	cluster.Await(t, ns, "box", cluster.Ready)
	cluster.Kubectl(t, "debug", "-n", ns, "box", "--image", cluster.Toolbox, "--image-pull-policy=IfNotPresent", "--container=look", "--", "toolbox", "dial", "http://127.0.0.1:8080/")
	p := cluster.Await(t, ns, "box", func(p *corev1.Pod) error {
		if len(p.Status.EphemeralContainerStatuses) == 0 || p.Status.EphemeralContainerStatuses[0].State.Terminated == nil {
			return errors.New("the ephemeral container has not ended")
		}
		return nil
	})
	if s := p.Status.EphemeralContainerStatuses[0].State.Terminated; s.ExitCode != 0 {
		t.Errorf("the ephemeral container ended with %+v", s)
	}
	has(t, cluster.Kubectl(t, "logs", "-n", ns, "box", "-c", "look"), "box")
	if s := p.Status.ContainerStatuses[0]; s.RestartCount != 0 {
		t.Errorf("the Pod's own container was started again: %+v", s)
	}
}
