// Package disk tests what happens when the file system of the data directory fills up under a running cluster: its Pods go
// on, it says why it writes nothing, and it goes on by itself when there is space again.
package disk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"flyball.dev/test/e2e/internal/cluster"
)

func TestMain(m *testing.M) { cluster.MainWithout(m) }

const size = "size=2g" // a start needs half of it, see `flyball check`

func TestDiskFills(t *testing.T) {
	disk, usual := t.TempDir(), cluster.DataDir
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, size); err != nil {
		t.Fatal(err)
	}
	cluster.DataDir = filepath.Join(disk, "data")
	t.Cleanup(func() {
		if err := errors.Join(cluster.Down(), unix.Unmount(disk, 0)); err != nil {
			t.Error(err)
		}
		cluster.DataDir = usual
	})
	if err := cluster.Up(); err != nil {
		t.Fatal(err)
	}
	client := cluster.Client(t)
	ns := cluster.Namespace(t)
	hello := corev1.PodSpec{Containers: []corev1.Container{{Name: "hello", Image: cluster.Hello}}}
	cluster.Run(t, ns, "hello", hello)
	pod := cluster.Await(t, ns, "hello", cluster.Ready)
	before := describe(t, client, pod)

	filler := filepath.Join(disk, "filler")
	fill(t, filler)
	const reason = "no space left on the file system of "
	cluster.Eventually(t, cluster.Soon, func() error {
		out, err := exec.CommandContext(t.Context(), cluster.Binary(), "status").CombinedOutput()
		if err == nil || !strings.Contains(string(out), reason+cluster.DataDir) {
			return fmt.Errorf("status does not say that the disk is full: %w: %s", err, out)
		}
		return nil
	})
	if log, err := os.ReadFile(filepath.Join(cluster.DataDir, "log", "flyball.log")); err != nil || !strings.Contains(string(log), reason) {
		t.Errorf("the log does not say that the disk is full: %v\n%s", err, log)
	}
	_, err := cluster.TryKubectl(t, "", "create", "configmap", "-n", ns, "refused")
	if err == nil || !strings.Contains(err.Error(), reason) {
		t.Errorf("a write that cannot be kept ends with: %v", err)
	}
	if _, err := cluster.Get(t.Context(), "http://"+pod.Status.PodIP+":8080/"); err != nil {
		t.Errorf("the Pod does not answer: %v", err)
	}
	if _, err := client.CoreV1().ConfigMaps(ns).Get(t.Context(), "kube-root-ca.crt", metav1.GetOptions{}); err != nil {
		t.Errorf("what was stored cannot be read: %v", err)
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, cluster.Soon, func() error {
		_, err := cluster.TryKubectl(t, "", "create", "configmap", "-n", ns, "accepted")
		return err
	})
	cluster.Eventually(t, cluster.Soon, func() error {
		if out, err := exec.CommandContext(t.Context(), cluster.Binary(), "status").CombinedOutput(); err != nil {
			return fmt.Errorf("with space again: %w: %s", err, out)
		}
		return nil
	})
	if after := describe(t, client, pod); after != before {
		t.Errorf("it was %s and is %s", before, after)
	}
	cluster.Run(t, ns, "another", hello)
	cluster.Await(t, ns, "another", cluster.Ready)
}

// fill takes all that is left, up to the last byte.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for {
		if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// describe is what must not change while the disk is full.
func describe(t *testing.T, client kubernetes.Interface, pod *corev1.Pod) string {
	t.Helper()
	p, err := client.CoreV1().Pods(pod.Namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node, err := client.CoreV1().Nodes().Get(t.Context(), p.Spec.NodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ready := ""
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			ready = fmt.Sprintf("%s since %s", c.Status, c.LastTransitionTime)
		}
	}
	s := p.Status.ContainerStatuses[0]
	return fmt.Sprintf("process %d, container %s, restarted %d times, on a node whose condition Ready is %s",
		cluster.PID(t, "flyball"), s.ContainerID, s.RestartCount, ready)
}
