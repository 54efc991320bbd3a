package pods

import (
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"flyball.dev/test/e2e/internal/cluster"
)

func TestProbes(t *testing.T) {
	ns := cluster.Namespace(t)
	probe := func(h corev1.ProbeHandler) *corev1.Probe {
		return &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, TimeoutSeconds: 10, ProbeHandler: h}
	}
	health := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080)}}
	server := func(port string) corev1.Container { return container("serve", "http=:"+port) }

	t.Run("Readiness", func(t *testing.T) {
		c := server("8080")
		c.ReadinessProbe = probe(health)
		cluster.Run(t, ns, "readiness", pod(c))
		ip := cluster.Await(t, ns, "readiness", cluster.Ready).Status.PodIP
		get(t, "http://"+ip+":8080/break")
		cluster.Await(t, ns, "readiness", func(p *corev1.Pod) error {
			if cluster.Ready(p) == nil {
				return errors.New("it is still Ready")
			}
			return nil
		})
		get(t, "http://"+ip+":8080/mend")
		if p := cluster.Await(t, ns, "readiness", cluster.Ready); p.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Error("a container that was not ready was started again")
		}
	})
	t.Run("Liveness", func(t *testing.T) {
		c := server("8080")
		c.LivenessProbe = probe(health)
		cluster.Run(t, ns, "liveness", pod(c))
		get(t, "http://"+cluster.Await(t, ns, "liveness", cluster.Ready).Status.PodIP+":8080/break")
		cluster.Await(t, ns, "liveness", restarted(1))
		cluster.AwaitEvent(t, ns, "liveness", "Unhealthy")
	})
	t.Run("ExecAndTCP", func(t *testing.T) {
		good := server("8080")
		good.ReadinessProbe = probe(corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/true"}}})
		good.LivenessProbe = probe(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}})
		cluster.Run(t, ns, "good", pod(good))
		cluster.Await(t, ns, "good", cluster.Ready)
		bad := server("8080")
		bad.ReadinessProbe = probe(corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/false"}}})
		bad.LivenessProbe = probe(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(9)}})
		cluster.Run(t, ns, "bad", pod(bad))
		if p := cluster.Await(t, ns, "bad", restarted(1)); cluster.Ready(p) == nil {
			t.Error("a Pod whose probe fails is Ready")
		}
	})
}

// TestStartupProbe holds the other probes back until the container has started.
func TestStartupProbe(t *testing.T) {
	ns := cluster.Namespace(t)
	file := func(path string, failures int32) *corev1.Probe {
		return &corev1.Probe{
			PeriodSeconds: 1, FailureThreshold: failures, TimeoutSeconds: 10,
			ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/test", "-f", path}}},
		}
	}
	c := container("sleep", "inf")
	c.StartupProbe, c.LivenessProbe = file("/started", 60), file("/started", 1)
	cluster.Run(t, ns, "slow", pod(c))
	cluster.AwaitEvent(t, ns, "slow", "Unhealthy") // by the startup probe: by the liveness probe it would be started again
	started := func(want bool) func(*corev1.Pod) error {
		return func(p *corev1.Pod) error {
			if s := p.Status.ContainerStatuses[0].Started; s == nil || *s != want {
				return fmt.Errorf("its status does not say started=%t", want)
			}
			return nil
		}
	}
	if p := cluster.Await(t, ns, "slow", started(false)); cluster.Ready(p) == nil {
		t.Error("a Pod that has not started is Ready")
	}
	cluster.Kubectl(t, "exec", "-n", ns, "slow", "--", "toolbox", "write", "/started", "yes")
	cluster.Await(t, ns, "slow", started(true))
	if p := cluster.Await(t, ns, "slow", cluster.Ready); p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Error("a container that starts slowly was started again")
	}

	never := container("sleep", "inf")
	never.StartupProbe = file("/nosuch", 1)
	cluster.Run(t, ns, "never", pod(never))
	cluster.Await(t, ns, "never", restarted(1))
}
