package pods

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"flyball.dev/test/e2e/internal/cluster"
)

func TestSecurityContext(t *testing.T) {
	ns := cluster.Namespace(t)
	user, group, no, yes := int64(1000), int64(2000), false, true
	c := container("id")
	c.SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_BIND_SERVICE"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	spec := pod(c)
	spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user, RunAsGroup: &group, SupplementalGroups: []int64{3000}}
	out := cluster.Output(t, ns, "secured", spec)
	has(t, out, "NoNewPrivs: 1", "Seccomp: 2")
	if !strings.Contains(out, "uid=1000 gid=2000") || !strings.Contains(out, "3000") {
		t.Errorf("it ran as %s", out)
	}

	readOnly := container("write", "/file", "x")
	readOnly.SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: &yes}
	spec = pod(readOnly)
	spec.RestartPolicy = corev1.RestartPolicyNever
	cluster.Run(t, ns, "readonly", spec)
	cluster.Await(t, ns, "readonly", cluster.Phase(corev1.PodFailed))

	// As root with all of the default capabilities, it can.
	has(t, cluster.Output(t, ns, "writable", pod(container("write", "/file", "x"), container("id"))), "Seccomp: 0")
}
