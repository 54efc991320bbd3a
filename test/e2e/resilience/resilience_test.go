// Package resilience tests what a cluster survives: the end of a container, of a Pod, of Flyball itself, and of the node
// agent; and that nothing is left when it is taken down.
package resilience

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

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
		{"FlyballIsStopped", flyballIsStopped},
		{"DownAndUp", downAndUp},
		{"AgentIsUnplugged", agentIsUnplugged},
	} {
		if !t.Run(step.name, step.run) {
			return
		}
	}
}

func containerDies(t *testing.T) {
	pod := pods(t)[0]
	kill(t, cluster.ProcessesOf(string(pod.UID), "hello"))
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
	kill(t, cluster.ProcessesOf(string(pod.UID), "hello"))
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
			if cluster.Ready(p) == nil {
				return errors.New("it is still Ready")
			}
			return nil
		})
	}
	start(t, "agent")
	awaitNode(t, corev1.ConditionTrue)
	awaitReady(t, 2)
	unchanged(t, before)
}

func client(t *testing.T) kubernetes.Interface {
	t.Helper()
	return cluster.Client(t)
}

func deploy(t *testing.T, replicas int32) {
	t.Helper()
	grace := int64(1)
	labels := map[string]string{"app": "resilience"}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "resilience"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					TerminationGracePeriodSeconds: &grace,
					Containers:                    []corev1.Container{{Name: "hello", Image: cluster.Hello}},
				},
			},
		},
	}
	deployments := client(t).AppsV1().Deployments(namespace)
	_, err := deployments.Update(t.Context(), d, metav1.UpdateOptions{})
	if cluster.Gone(err) == nil {
		_, err = deployments.Create(t.Context(), d, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func pods(t *testing.T) []corev1.Pod {
	t.Helper()
	list, err := client(t).CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=resilience"})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// awaitReady waits until there are n Pods, all Ready.
func awaitReady(t *testing.T, n int) {
	t.Helper()
	cluster.Eventually(t, cluster.Soon, func() error {
		all := pods(t)
		if len(all) != n {
			return fmt.Errorf("there are %d Pods, want %d", len(all), n)
		}
		for _, p := range all {
			if err := cluster.Ready(&p); err != nil {
				return fmt.Errorf("pod %s: %w", p.Name, err)
			}
		}
		return nil
	})
}

// containers are the IDs and restarts of the Pods' containers, by the Pods' UIDs.
func containers(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, p := range pods(t) {
		s := p.Status.ContainerStatuses[0]
		out[string(p.UID)] = fmt.Sprintf("%s %d", s.ContainerID, s.RestartCount)
	}
	return out
}

// unchanged waits until the node agent has looked at everything, and compares.
func unchanged(t *testing.T, before map[string]string) {
	t.Helper()
	awaitReady(t, len(before))
	if after := containers(t); !maps.Equal(before, after) {
		t.Errorf("the containers were %v and are %v", before, after)
	}
}

func awaitNode(t *testing.T, ready corev1.ConditionStatus) {
	t.Helper()
	// The node controller waits 40 s for the Lease.
	cluster.Eventually(t, 2*time.Minute, func() error {
		nodes, err := client(t).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, c := range nodes.Items[0].Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == ready {
				return nil
			}
		}
		return fmt.Errorf("the Node's condition Ready is not %s", ready)
	})
}

func kill(t *testing.T, pids []int) {
	t.Helper()
	if len(pids) == 0 {
		t.Fatal("there is no process to kill")
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		awaitEnd(t, pid)
	}
}

func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	cluster.Eventually(t, cluster.Soon, func() error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || slices.Contains(stat[:min(len(stat), 40)], 'Z') {
			return nil //nolint:nilerr // it has no status because it is gone
		}
		return fmt.Errorf("process %d still runs", pid)
	})
}

// start runs a half of Flyball until the test ends.
func start(t *testing.T, role string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(cluster.Binary(), role, "--data-dir", cluster.DataDir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, cmd) })
	return cmd
}

func end(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if cmd.ProcessState != nil {
		return
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("flyball %s ended with %v", cmd.Args[1], err)
	}
}
