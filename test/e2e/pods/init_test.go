package pods

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"flyball.dev/test/e2e/internal/cluster"
)

func TestInitContainers(t *testing.T) {
	ns := cluster.Namespace(t)
	mount := []corev1.VolumeMount{{Name: "work", MountPath: "/work"}}
	always := corev1.ContainerRestartPolicyAlways
	spec := corev1.PodSpec{
		Volumes: []corev1.Volume{{Name: "work", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		InitContainers: []corev1.Container{
			{Args: []string{"write", "/work/first", "1"}, VolumeMounts: mount},
			{
				Name: "sidecar", Args: []string{"serve", "http=:8080"}, RestartPolicy: &always,
				StartupProbe: &corev1.Probe{
					PeriodSeconds: 1, FailureThreshold: 60,
					ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}},
				},
			},
			{Name: "second", Args: []string{"cat", "/work/first"}, VolumeMounts: mount},
		},
		Containers: []corev1.Container{{Args: []string{"dial", "http://127.0.0.1:8080/"}, VolumeMounts: mount}},
	}
	if out := cluster.Output(t, ns, "init", spec); !strings.Contains(out, "init\n") {
		t.Errorf("the sidecar did not answer: %s", out)
	}
	pod := cluster.Await(t, ns, "init", cluster.Phase(corev1.PodSucceeded))
	for _, s := range pod.Status.InitContainerStatuses {
		if s.State.Terminated == nil {
			t.Errorf("init container %s has not ended: %+v", s.Name, s.State)
		}
	}

	failing := corev1.PodSpec{
		RestartPolicy:  corev1.RestartPolicyNever,
		InitContainers: []corev1.Container{container("exit", "3")},
		Containers:     []corev1.Container{container("true")},
	}
	cluster.Run(t, ns, "failing", failing)
	pod = cluster.Await(t, ns, "failing", cluster.Phase(corev1.PodFailed))
	if s := pod.Status.InitContainerStatuses[0].State.Terminated; s == nil || s.ExitCode != 3 {
		t.Errorf("the init container's end is %+v", s)
	}
	if s := pod.Status.ContainerStatuses[0].State.Waiting; s == nil || s.Reason != "PodInitializing" {
		t.Errorf("the container that never ran is %+v", pod.Status.ContainerStatuses[0].State)
	}
}

// TestSidecar has an init container that runs beside the others: they wait until it has started, and it is started again
// without them.
func TestSidecar(t *testing.T) {
	ns := cluster.Namespace(t)
	always := corev1.ContainerRestartPolicyAlways
	spec := corev1.PodSpec{
		Volumes: []corev1.Volume{{Name: "work", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		InitContainers: []corev1.Container{{
			Name: "sidecar", Args: []string{"serve", "http=:8080"}, RestartPolicy: &always,
			VolumeMounts: []corev1.VolumeMount{{Name: "work", MountPath: "/work"}},
			StartupProbe: &corev1.Probe{
				PeriodSeconds: 1, FailureThreshold: 60,
				ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/test", "-f", "/work/started"}}},
			},
		}},
		Containers: []corev1.Container{container("sleep", "inf")},
	}
	cluster.Run(t, ns, "sidecar", spec)
	p := cluster.Await(t, ns, "sidecar", func(p *corev1.Pod) error {
		if len(p.Status.InitContainerStatuses) == 0 || p.Status.InitContainerStatuses[0].State.Running == nil {
			return errors.New("the sidecar does not run")
		}
		return nil
	})
	if s := p.Status.ContainerStatuses[0].State.Waiting; s == nil || s.Reason != "PodInitializing" {
		t.Errorf("before the sidecar has started, the container is %+v", p.Status.ContainerStatuses[0].State)
	}
	cluster.Kubectl(t, "exec", "-n", ns, "sidecar", "-c", "sidecar", "--", "toolbox", "write", "/work/started", "yes")
	p = cluster.Await(t, ns, "sidecar", cluster.Ready)

	_, _ = cluster.Get(t.Context(), "http://"+p.Status.PodIP+":8080/exit")
	p = cluster.Await(t, ns, "sidecar", func(p *corev1.Pod) error {
		if s := p.Status.InitContainerStatuses[0]; s.RestartCount != 1 || s.State.Running == nil || s.Started == nil || !*s.Started {
			return errors.New("the sidecar was not started again")
		}
		return cluster.Ready(p)
	})
	if s := p.Status.ContainerStatuses[0]; s.RestartCount != 0 {
		t.Errorf("with the sidecar the container was started again: %+v", s)
	}
}
