package pods

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"flyball.dev/test/e2e/internal/cluster"
)

// TestQoS looks at the cgroups of each class.
func TestQoS(t *testing.T) {
	ns := cluster.Namespace(t)
	amounts := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
	tests := map[string]struct {
		resources corev1.ResourceRequirements
		want      corev1.PodQOSClass
		parent    string
	}{
		"guaranteed": {corev1.ResourceRequirements{Limits: amounts("100m", "64Mi")}, corev1.PodQOSGuaranteed, "kubepods"},
		"burstable":  {corev1.ResourceRequirements{Requests: amounts("100m", "32Mi"), Limits: amounts("200m", "64Mi")}, corev1.PodQOSBurstable, "kubepods/burstable"},
		"besteffort": {corev1.ResourceRequirements{}, corev1.PodQOSBestEffort, "kubepods/besteffort"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			c := container("sleep", "inf")
			c.Resources = tc.resources
			cluster.Run(t, ns, name, pod(c))
			p := cluster.Await(t, ns, name, cluster.Ready)
			if p.Status.QOSClass != tc.want {
				t.Errorf("its class is %s, want %s", p.Status.QOSClass, tc.want)
			}
			dir := cgroup(t, tc.parent, p.UID)
			if limit := tc.resources.Limits.Memory(); !limit.IsZero() {
				if got := readAny(t, dir, "memory.limit_in_bytes", "memory.max"); got != fmt.Sprint(limit.Value()) {
					t.Errorf("the memory limit of its cgroup is %s, want %d", got, limit.Value())
				}
			}
			cluster.Kubectl(t, "delete", "pod", "-n", ns, name)
			if _, err := os.Stat(dir); !os.IsNotExist(err) {
				t.Errorf("the Pod is gone, its cgroup %s is not: %v", dir, err)
			}
		})
	}
}

// cgroup is the Pod's directory in the hierarchy that has the memory controller.
func cgroup(t *testing.T, parent string, uid types.UID) string {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		dir := filepath.Join(root, parent, "pod"+string(uid))
		if _, err := os.Stat(dir); err == nil {
			return dir
		}
	}
	t.Fatalf("there is no cgroup of Pod %s below %s", uid, parent)
	return ""
}

func readAny(t *testing.T, dir string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			return strings.TrimSpace(string(data))
		}
	}
	t.Fatalf("there is none of %v in %s", names, dir)
	return ""
}

func TestOOMKilled(t *testing.T) {
	ns := cluster.Namespace(t)
	c := container("memory", "256")
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("48Mi")}
	spec := pod(c)
	spec.RestartPolicy = corev1.RestartPolicyNever
	cluster.Run(t, ns, "oom", spec)
	p := cluster.Await(t, ns, "oom", cluster.Phase(corev1.PodFailed))
	if s := p.Status.ContainerStatuses[0].State.Terminated; s.Reason != "OOMKilled" || s.ExitCode != 137 {
		t.Errorf("its end is %s, exit code %d", s.Reason, s.ExitCode)
	}
}
