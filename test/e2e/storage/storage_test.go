// Package storage tests what a claim gets without any setting: a volume that outlives its Pods, has a limit, grows, is
// copied by snapshots, and is deleted with the claim.
package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flyball.dev/storage/list"
	"flyball.dev/test/e2e/internal/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }

const deployment = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 400Mi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: db}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: c, image: %q, args: [sleep, inf], volumeMounts: [{name: data, mountPath: /data}]}
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
`

const snapshot = `
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: before}
spec: {source: {persistentVolumeClaimName: data}}
`

const restored = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: restored}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 600Mi}}
  dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: before}
`

func TestClaim(t *testing.T) {
	ns := cluster.Namespace(t)
	cluster.KubectlInput(t, fmt.Sprintf(deployment, cluster.Toolbox), "apply", "-n", ns, "-f", "-")
	toolbox := func(args ...string) (string, error) {
		return cluster.TryKubectl(t, "", append([]string{"exec", "-n", ns, "deployment/db", "--", "toolbox"}, args...)...)
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := toolbox(args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	available := func() {
		t.Helper()
		cluster.Kubectl(t, "rollout", "status", "-n", ns, "deployment/db", "--timeout", cluster.Soon.String())
	}
	available()
	must("write", "/data/file", "first")

	first := running(t, ns, "")
	cluster.Kubectl(t, "delete", "pod", "-n", ns, first)
	pod := running(t, ns, first)
	if got := must("cat", "/data/file"); got != "first" {
		t.Errorf("the next Pod reads %q", got)
	}

	v := volume(t, ns, "data")
	if v.Node == "" || v.Size != 400<<20 || len(v.Pods) != 1 || v.Pods[0] != pod || !strings.HasPrefix(v.Path, cluster.DataDir) {
		t.Errorf("`flyball volume list` shows %+v", v)
	}
	cluster.Eventually(t, cluster.Soon, func() error {
		if volume(t, ns, "data").Used == nil {
			return errors.New("`flyball volume list` does not show how much is used")
		}
		return nil
	})

	cluster.Kubectl(t, "patch", "pvc", "-n", ns, "data", "-p", `{"spec":{"resources":{"requests":{"storage":"600Mi"}}}}`)
	cluster.Eventually(t, cluster.Soon, func() error {
		claim, err := cluster.Client(t).CoreV1().PersistentVolumeClaims(ns).Get(t.Context(), "data", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if size := claim.Status.Capacity[corev1.ResourceStorage]; size.Cmp(resource.MustParse("600Mi")) != 0 || len(claim.Status.Conditions) > 0 && claim.Status.Conditions[0].Type != "Unused" {
			return fmt.Errorf("the claim has %s and %v", size.String(), claim.Status.Conditions)
		}
		return nil
	})
	if out, err := toolbox("fill", "/data/more", "450"); err != nil {
		t.Errorf("the Pod that runs has no more space than before: %s, %v", out, err)
	}
	if out, err := toolbox("fill", "/data/more", "700"); err == nil || !strings.Contains(out+err.Error(), "no space left on device") && !strings.Contains(out+err.Error(), "quota exceeded") {
		t.Errorf("writing more than fits: %s, %v", out, err)
	}
	must("rm", "/data/more")

	cluster.KubectlInput(t, snapshot, "apply", "-n", ns, "-f", "-")
	cluster.Kubectl(t, "wait", "-n", ns, "volumesnapshot/before", "--for=jsonpath={.status.readyToUse}=true", "--timeout", cluster.Soon.String())
	must("write", "/data/file", "second")
	cluster.KubectlInput(t, restored, "apply", "-n", ns, "-f", "-")
	out := cluster.Output(t, ns, "reader", corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever,
		Volumes:       []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "restored"}}}},
		Containers:    []corev1.Container{{Args: []string{"cat", "/data/file"}, VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}}},
	})
	if out != "first" {
		t.Errorf("what is restored reads %q", out)
	}

	paths := []string{volume(t, ns, "data").Path, volume(t, ns, "restored").Path}
	cluster.Kubectl(t, "delete", "-n", ns, "deployment/db", "pod/reader", "volumesnapshot/before", "pvc/data", "pvc/restored")
	cluster.Eventually(t, cluster.Soon, func() error {
		for _, path := range paths {
			if _, err := os.Stat(path); !os.IsNotExist(err) {
				return fmt.Errorf("the claim is deleted and %s is still there: %w", path, err)
			}
		}
		left, _ := filepath.Glob(filepath.Join(cluster.DataDir, "snapshots", "*"))
		if len(left) > 0 {
			return fmt.Errorf("the snapshot is deleted and %v is still there", left)
		}
		volumes, err := cluster.Client(t).CoreV1().PersistentVolumes().List(t.Context(), metav1.ListOptions{})
		if err == nil && len(volumes.Items) > 0 {
			err = fmt.Errorf("there are still PersistentVolumes: %v", volumes.Items)
		}
		return err
	})
}

// running waits for a Pod of the Deployment that is Ready and is not the one called other.
func running(t *testing.T, ns, other string) (name string) {
	t.Helper()
	cluster.Eventually(t, cluster.Soon, func() error {
		pods, err := cluster.Client(t).CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{LabelSelector: "app=db"})
		if err != nil {
			return err
		}
		for _, p := range pods.Items {
			if p.Name != other && cluster.Ready(&p) == nil {
				name = p.Name
				return nil
			}
		}
		return fmt.Errorf("there is no Pod that is Ready: %d", len(pods.Items))
	})
	return name
}

// volume is what `flyball volume list` shows of a claim's volume.
func volume(t *testing.T, ns, claim string) list.Volume {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), cluster.Binary(), "volume", "list", "-o", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var volumes []list.Volume
	if err := json.Unmarshal(out, &volumes); err != nil {
		t.Fatal(err)
	}
	for _, v := range volumes {
		if v.Namespace == ns && v.Claim == claim {
			return v
		}
	}
	t.Fatalf("`flyball volume list` does not show claim %s: %s", claim, out)
	return list.Volume{}
}

// TestDefaults: what a user has changed or deleted of the defaults does not come back.
func TestDefaults(t *testing.T) {
	cluster.Kubectl(t, "annotate", "storageclass", "local", "storageclass.kubernetes.io/is-default-class-")
	cluster.Kubectl(t, "delete", "volumesnapshotclass", "local")
	if err := cluster.Flyball("down", "--data-dir", cluster.DataDir); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Up(); err != nil {
		t.Fatal(err)
	}
	class, err := cluster.Client(t).StorageV1().StorageClasses().Get(t.Context(), "local", metav1.GetOptions{})
	if err != nil || class.Annotations["storageclass.kubernetes.io/is-default-class"] != "" {
		t.Errorf("the StorageClass is %v, %v", class, err)
	}
	if _, err := cluster.TryKubectl(t, "", "get", "volumesnapshotclass", "local"); err == nil || !strings.Contains(err.Error(), "NotFound") {
		t.Errorf("the VolumeSnapshotClass: %v", err)
	}
}
