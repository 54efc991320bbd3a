// Package resilience tests what a cluster survives: the end of a container, of a Pod, of Flyball itself, and of the node
// agent; and that nothing is left when it is taken down.
package resilience

import (
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flyball.dev/test/e2e/internal/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

// namespace of the Deployment that all of this happens to.
const namespace = "default"

// TestStory goes from the smallest accident to the largest. Each step finds the cluster as the one before left it.
func TestStory(t *testing.T) {
	deploy(t, 2)
	awaitReady(t, 2)
	for _, step := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"ContainerDies", containerDies},
		{"PodIsDeleted", podIsDeleted},
		{"FlyballIsKilled", flyballIsKilled},
		{"FlyballIsKilledInARollout", flyballIsKilledInARollout},
		{"ContainerdIsKilled", containerdIsKilled},
		{"FlyballIsStopped", flyballIsStopped},
		{"DownAndUp", downAndUp},
		{"MachineReboots", machineReboots},
		{"AgentIsUnplugged", agentIsUnplugged},
		{"Purge", purge},
	} {
		if !t.Run(step.name, step.run) {
			return
		}
	}
}

func containerDies(t *testing.T) {
	pod := pods(t)[0]
	kill(t, programOf(t, &pod))
	cluster.Await(t, namespace, pod.Name, func(p *corev1.Pod) error {
		s := p.Status.ContainerStatuses[0]
		if s.RestartCount != 1 || s.State.Running == nil {
			return errors.New("the container was not started again")
		}
		if last := s.LastTerminationState.Terminated; last == nil || last.ExitCode != 128+int32(syscall.SIGKILL) {
			return fmt.Errorf("its last end is %+v, want one by SIGKILL", last)
		}
		return cluster.Ready(p)
	})
	// The second time it waits.
	kill(t, programOf(t, &pod))
	cluster.Await(t, namespace, pod.Name, cluster.WaitingFor("CrashLoopBackOff"))
	cluster.AwaitEvent(t, namespace, pod.Name, "BackOff")
}

func podIsDeleted(t *testing.T) {
	// Both: none has to wait out a back-off from here on.
	for _, pod := range pods(t) {
		if err := client(t).CoreV1().Pods(namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		cluster.Eventually(t, cluster.Soon, func() error {
			_, err := client(t).CoreV1().Pods(namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
			return cluster.Gone(err)
		})
	}
	awaitReady(t, 2)
}

// flyballIsKilled finds all containers running on, and none of them started again afterwards.
func flyballIsKilled(t *testing.T) {
	before := containers(t)
	kill(t, []int{cluster.PID(t, "flyball")})
	for uid := range before {
		if len(cluster.ProcessesOf(uid, "hello")) == 0 {
			t.Errorf("a container of Pod %s ended with flyball", uid)
		}
	}
	if err := cluster.Up(); err != nil {
		t.Fatal(err)
	}
	unchanged(t, before)
	// And it goes on working.
	deploy(t, 3)
	awaitReady(t, 3)
	deploy(t, 2)
	awaitReady(t, 2)
}

func flyballIsStopped(t *testing.T) {
	before := containers(t)
	pid := cluster.PID(t, "flyball")
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, pid)
	if err := exec.Command(cluster.Binary(), "status").Run(); err == nil {
		t.Error("flyball status succeeds though flyball does not run")
	}
	if err := cluster.Up(); err != nil {
		t.Fatal(err)
	}
	unchanged(t, before)
}

// downAndUp leaves nothing in between, and finds the same Pods in new containers.
func downAndUp(t *testing.T) {
	before := containers(t)
	if err := cluster.Flyball("down"); err != nil {
		t.Fatal(err)
	}
	cluster.NothingLeft(t)
	if err := cluster.Flyball("down"); err != nil {
		t.Errorf("taking down what is down: %v", err)
	}
	if err := cluster.Up(); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, 2)
	after := containers(t)
	if !slices.Equal(slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after))) {
		t.Errorf("the Pods were %v and are %v: the same are back from etcd", before, after)
	}
}

// agentIsUnplugged runs server and agent as two processes, and stops the second for a while.
func agentIsUnplugged(t *testing.T) {
	before := containers(t)
	pid := cluster.PID(t, "flyball")
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, pid)
	start(t, "server")
	agent := start(t, "agent")
	cluster.Eventually(t, cluster.Soon, func() error {
		if out, err := exec.Command(cluster.Binary(), "status").CombinedOutput(); err != nil {
			return fmt.Errorf("server and agent run: %w: %s", err, out)
		}
		return nil
	})
	awaitNode(t, corev1.ConditionTrue)
	unchanged(t, before)

	end(t, agent)
	awaitNode(t, corev1.ConditionUnknown)
	for _, pod := range pods(t) {
		cluster.Await(t, namespace, pod.Name, func(p *corev1.Pod) error {
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodReady && c.Status == corev1.ConditionFalse {
					return nil
				}
			}
			return errors.New("its condition Ready is not False")
		})
		cluster.AwaitEvent(t, namespace, pod.Name, "NodeNotReady")
	}
	start(t, "agent")
	awaitNode(t, corev1.ConditionTrue)
	awaitReady(t, 2)
	unchanged(t, before)
}
