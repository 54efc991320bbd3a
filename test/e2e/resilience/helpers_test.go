package resilience

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"flyball.dev/test/e2e/internal/cluster"
)

func client(t *testing.T) kubernetes.Interface {
	t.Helper()
	return cluster.Client(t)
}

func deploy(t *testing.T, replicas int32) {
	t.Helper()
	deployVersion(t, replicas, "first")
}

func deployVersion(t *testing.T, replicas int32, version string) {
	t.Helper()
	grace := int64(1)
	labels := map[string]string{"app": "resilience"}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "resilience"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "resilience", "version": version}},
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

// programOf waits until a Pod's program runs, and returns its processes: the container is Running while runc still prepares it.
func programOf(t *testing.T, pod *corev1.Pod) []int {
	t.Helper()
	var pids []int
	cluster.Eventually(t, cluster.Soon, func() error {
		if pids = cluster.ProcessesOf(string(pod.UID), "hello"); len(pids) == 0 {
			return fmt.Errorf("pod %s has no process of its program", pod.Name)
		}
		return nil
	})
	return pids
}

func awaitNode(t *testing.T, ready corev1.ConditionStatus) {
	t.Helper()
	// The node controller waits 40 s for the Lease.
	cluster.Eventually(t, 2*time.Minute, func() error {
		if status := nodeReady(t); status != ready {
			return fmt.Errorf("the Node's condition Ready is %s, not %s", status, ready)
		}
		return nil
	})
}

func nodeReady(t *testing.T) corev1.ConditionStatus {
	t.Helper()
	nodes, err := client(t).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 1 {
		t.Fatalf("there are %d nodes: %v", len(nodes.Items), err)
	}
	for _, c := range nodes.Items[0].Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status
		}
	}
	return corev1.ConditionUnknown
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
	cluster.Eventually(t, cluster.Soon, func() error { return cluster.Ended(pid) })
}

// start runs a half of Flyball until the test ends.
func start(t *testing.T, role string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(cluster.Binary(), append([]string{role}, cluster.Dirs(cluster.DataDir)...)...)
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
