package resilience

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flyball.dev/test/e2e/internal/cluster"
)

// flyballIsKilledInARollout loses nothing that it has acknowledged, and the next start ends what the last one began.
func flyballIsKilledInARollout(t *testing.T) {
	deployVersion(t, 2, "second")
	cluster.Eventually(t, cluster.Soon, func() error {
		if !slices.ContainsFunc(pods(t), func(p corev1.Pod) bool { return versionOf(&p) == "second" }) {
			return errors.New("the rollout has not begun")
		}
		return nil
	})
	written, err := client(t).CoreV1().ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "acknowledged-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kill(t, []int{cluster.PID(t, "flyball")})
	if err := cluster.Up(); err != nil {
		t.Fatal(err)
	}
	if _, err := client(t).CoreV1().ConfigMaps(namespace).Get(t.Context(), written.Name, metav1.GetOptions{}); err != nil {
		t.Errorf("what was acknowledged before the kill: %v", err)
	}
	awaitRollout(t, 2, "second")
	sets, err := client(t).AppsV1().ReplicaSets(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=resilience"})
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]int32{}
	for _, rs := range sets.Items {
		versions[rs.Spec.Template.Labels["version"]] += *rs.Spec.Replicas
	}
	if len(sets.Items) != 2 || len(versions) != 2 || versions["second"] != 2 {
		t.Errorf("there are %d ReplicaSets with replicas %v: one for each version, and all replicas in the second", len(sets.Items), versions)
	}
	// And back, so that the steps that follow deploy what they find.
	deploy(t, 2)
	awaitRollout(t, 2, "first")
}

// awaitRollout waits until there are n Pods, all Ready and of the version, and the Deployment says so.
func awaitRollout(t *testing.T, n int, version string) {
	t.Helper()
	awaitReady(t, n)
	cluster.Eventually(t, cluster.Soon, func() error {
		all := pods(t)
		for _, p := range all {
			if versionOf(&p) != version {
				return fmt.Errorf("pod %s is of version %s, want %s", p.Name, versionOf(&p), version)
			}
		}
		d, err := client(t).AppsV1().Deployments(namespace).Get(t.Context(), "resilience", metav1.GetOptions{})
		if err != nil {
			return err
		}
		st, want := d.Status, int32(n)
		if len(all) != n || st.ObservedGeneration != d.Generation || st.Replicas != want || st.UpdatedReplicas != want || st.AvailableReplicas != want {
			return fmt.Errorf("there are %d Pods, and of %d replicas the status says %+v", len(all), n, st)
		}
		return nil
	})
	awaitReady(t, n)
}

func versionOf(p *corev1.Pod) string { return p.Labels["version"] }

// containerdIsKilled: containers live under their shims.
func containerdIsKilled(t *testing.T) {
	cluster.Run(t, namespace, "box", corev1.PodSpec{Containers: []corev1.Container{{Args: []string{"sleep", "inf"}}}})
	box := func() string {
		s := cluster.Await(t, namespace, "box", cluster.Ready).Status.ContainerStatuses[0]
		return fmt.Sprintf("%s %d", s.ContainerID, s.RestartCount)
	}
	beforeBox, before := box(), containers(t)
	const containerd = "containerd/containerd"
	old := cluster.PID(t, containerd)
	kill(t, []int{old})
	cluster.Eventually(t, cluster.Soon, func() error {
		if status := nodeReady(t); status != corev1.ConditionTrue {
			t.Errorf("without containerd the Node's condition Ready is %s", status)
		}
		out, err := exec.Command(cluster.Binary(), "status").CombinedOutput()
		if err != nil || cluster.PID(t, containerd) == old {
			return fmt.Errorf("containerd was not started again: %w: %s", err, out)
		}
		return nil
	})
	cluster.Eventually(t, cluster.Soon, func() error {
		out, err := cluster.TryKubectl(t, "", "exec", "-n", namespace, "box", "--", "echo", "still here")
		if err == nil && out != "still here\n" {
			err = fmt.Errorf("exec gives %q", out)
		}
		return err
	})
	unchanged(t, before)
	if after := box(); after != beforeBox {
		t.Errorf("the container was %s and is %s", beforeBox, after)
	}
	if status := nodeReady(t); status != corev1.ConditionTrue {
		t.Errorf("after the end of containerd the Node's condition Ready is %s", status)
	}
	// What happens now is seen again.
	cluster.Kubectl(t, "delete", "pod", "-n", namespace, "box")
	cluster.Output(t, namespace, "afterwards", corev1.PodSpec{Containers: []corev1.Container{{Args: []string{"echo", "hello"}}}})
}

// machineReboots: what the kernel forgot is made anew, and the same Pods run in it.
func machineReboots(t *testing.T) {
	before := containers(t)
	all, err := client(t).CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var uids []string
	for _, p := range all.Items {
		uids = append(uids, string(p.UID))
	}
	cluster.Reboot(t, uids)
	if err := cluster.Up(); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, cluster.Soon, func() error {
		after := containers(t)
		for uid, was := range before {
			switch is, found := after[uid]; {
			case !found:
				t.Fatalf("the Pods were %v and are %v: the same are back from etcd", before, after)
			case is == was:
				return fmt.Errorf("pod %s still has its old container %s", uid, was)
			}
		}
		return nil
	})
	awaitReady(t, len(before))
	for _, p := range pods(t) {
		cluster.Eventually(t, cluster.Soon, func() error {
			_, err := cluster.Get(t.Context(), "http://"+p.Status.PodIP+":8080/")
			return err
		})
	}
}

// purge leaves nothing: no data, no logs, no credentials.
func purge(t *testing.T) {
	if err := cluster.Up(); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, 2)
	// A Pod that has ended has logs too, and nothing else any more.
	cluster.Output(t, namespace, "ended", corev1.PodSpec{Containers: []corev1.Container{{Args: []string{"echo", "hello"}}}})
	all, err := client(t).CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if logs := logsOf(all.Items); len(logs) == 0 {
		t.Error("the Pods have no logs, so nothing is tested")
	}
	if err := cluster.Flyball("down", "--purge"); err != nil {
		t.Fatal(err)
	}
	cluster.NothingLeft(t)
	for _, path := range logsOf(all.Items) {
		t.Errorf("left behind: %s", path)
	}
	for _, path := range []string{cluster.DataDir, cluster.Kubeconfig} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("left behind: %s", path)
		}
	}
}

// logsOf are the files and links of these Pods' logs.
func logsOf(pods []corev1.Pod) []string {
	var found []string
	for _, pattern := range []string{"/var/log/pods/*", "/var/log/containers/*"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			target, _ := os.Readlink(path)
			if slices.ContainsFunc(pods, func(p corev1.Pod) bool { return strings.Contains(path+" "+target, string(p.UID)) }) {
				found = append(found, path)
			}
		}
	}
	return found
}
