package pods

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flyball.dev/test/e2e/internal/cluster"
)

func TestRestartPolicy(t *testing.T) {
	ns := cluster.Namespace(t)
	tests := map[string]struct {
		policy corev1.RestartPolicy
		code   string
		want   func(*corev1.Pod) error
	}{
		"always":    {corev1.RestartPolicyAlways, "0", restarted(1)},
		"onfailure": {corev1.RestartPolicyOnFailure, "1", restarted(1)},
		"succeeded": {corev1.RestartPolicyOnFailure, "0", cluster.Phase(corev1.PodSucceeded)},
		"failed":    {corev1.RestartPolicyNever, "1", cluster.Phase(corev1.PodFailed)},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			spec := pod(container("exit", tc.code))
			spec.RestartPolicy = tc.policy
			cluster.Run(t, ns, name, spec)
			cluster.Await(t, ns, name, tc.want)
			if tc.policy == corev1.RestartPolicyAlways {
				cluster.Await(t, ns, name, cluster.WaitingFor("CrashLoopBackOff"))
			}
		})
	}
}

// TestGracefulEnd deletes a Pod that does not end when told to.
func TestGracefulEnd(t *testing.T) {
	ns := cluster.Namespace(t)
	for name, tc := range map[string]struct {
		args       []string
		grace      int64
		atLeast, s time.Duration
	}{
		"polite":   {[]string{"sleep", "inf"}, 30, 0, 20 * time.Second},
		"stubborn": {[]string{"sleep", "inf", "stubborn"}, 3, 3 * time.Second, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			spec := pod(container(tc.args...))
			spec.TerminationGracePeriodSeconds = &tc.grace
			cluster.Run(t, ns, name, spec)
			cluster.Await(t, ns, name, cluster.Ready)
			began := time.Now()
			cluster.Kubectl(t, "delete", "pod", "-n", ns, name)
			if took := time.Since(began); took < tc.atLeast || took > tc.s {
				t.Errorf("it took %s, want %s to %s", took, tc.atLeast, tc.s)
			}
		})
	}
}

// TestDelete removes a Pod that never started, and one by force.
func TestDelete(t *testing.T) {
	ns := cluster.Namespace(t)
	cluster.Run(t, ns, "stuck", pod(corev1.Container{Image: "flyball.dev/nosuch:1", ImagePullPolicy: corev1.PullNever}))
	cluster.Await(t, ns, "stuck", cluster.WaitingFor("ErrImageNeverPull"))
	cluster.Run(t, ns, "forced", pod(container("sleep", "inf", "stubborn")))
	uid := string(cluster.Await(t, ns, "forced", cluster.Ready).UID)
	cluster.Kubectl(t, "delete", "pod", "-n", ns, "stuck")
	cluster.Kubectl(t, "delete", "pod", "-n", ns, "forced", "--force", "--grace-period=0")
	cluster.Eventually(t, cluster.Soon, func() error {
		if _, err := cluster.Client(t).CoreV1().Pods(ns).Get(t.Context(), "stuck", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the Pod that never started: %w", cluster.Gone(err))
		}
		if pids := cluster.ProcessesOf(uid, "toolbox"); len(pids) > 0 {
			return fmt.Errorf("the Pod is gone, its processes %v are not", pids)
		}
		return nil
	})
}
