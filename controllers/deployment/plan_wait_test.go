package deployment

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
	"k8s.io/utils/ptr"

	"flyball.dev/apis/apps/v1alpha1"
)

func TestWaitable(t *testing.T) {
	now := metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	earlier := metav1.NewTime(now.Add(-time.Minute))
	is := func(of appsv1.DeploymentConditionType, value corev1.ConditionStatus, reason string, at metav1.Time) appsv1.DeploymentCondition {
		return appsv1.DeploymentCondition{Type: of, Status: value, Reason: reason, LastUpdateTime: at, LastTransitionTime: at}
	}
	done := func(s *appsv1.DeploymentStatus) {
		s.Replicas, s.UpdatedReplicas, s.AvailableReplicas = 3, 3, 3
		s.Conditions = append(s.Conditions, is(appsv1.DeploymentProgressing, corev1.ConditionTrue, util.NewRSAvailableReason, earlier))
	}
	tests := map[string]struct {
		reason string
		change func(*appsv1.DeploymentStatus)
		want   []appsv1.DeploymentCondition
	}{
		"Complete": {"Nothing to say.", done, nil},
		"New": {
			"A Deployment without Pods is not ready.", func(*appsv1.DeploymentStatus) {},
			[]appsv1.DeploymentCondition{is(v1alpha1.Reconciling, corev1.ConditionTrue, v1alpha1.RollingOutReason, now)},
		},
		"OnePodShort": {
			"As for apps/v1, a Pod that failed later counts too.", func(s *appsv1.DeploymentStatus) { done(s); s.AvailableReplicas = 2 },
			[]appsv1.DeploymentCondition{is(v1alpha1.Reconciling, corev1.ConditionTrue, v1alpha1.RollingOutReason, now)},
		},
		"StillRolling": {"The condition is older than this reconcile.", func(s *appsv1.DeploymentStatus) {
			s.Conditions = append(s.Conditions, is(v1alpha1.Reconciling, corev1.ConditionTrue, v1alpha1.RollingOutReason, earlier))
		}, []appsv1.DeploymentCondition{is(v1alpha1.Reconciling, corev1.ConditionTrue, v1alpha1.RollingOutReason, earlier)}},
		"Over": {"What is over is taken away.", func(s *appsv1.DeploymentStatus) {
			done(s)
			s.Conditions = append(s.Conditions, is(v1alpha1.Reconciling, corev1.ConditionTrue, v1alpha1.RollingOutReason, earlier), is(v1alpha1.Stalled, corev1.ConditionTrue, v1alpha1.CrashLoopReason, earlier))
		}, nil},
		"Failed": {"It does not get better by itself.", func(s *appsv1.DeploymentStatus) {
			s.Conditions = append(s.Conditions, is(appsv1.DeploymentProgressing, corev1.ConditionFalse, util.TimedOutReason, earlier),
				is(v1alpha1.Reconciling, corev1.ConditionTrue, v1alpha1.RollingOutReason, earlier))
		}, []appsv1.DeploymentCondition{is(v1alpha1.Stalled, corev1.ConditionTrue, util.TimedOutReason, now)}},
		"Held": {"It waits for a person.", func(s *appsv1.DeploymentStatus) {
			s.Conditions = append(s.Conditions, is(appsv1.DeploymentProgressing, corev1.ConditionTrue, v1alpha1.PartitionReachedReason, earlier))
		}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Generation: 2}, Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](3)}}
			status := appsv1.DeploymentStatus{ObservedGeneration: 2}
			test.change(&status)
			var got []appsv1.DeploymentCondition
			for _, c := range withKstatus(d, status, now).Conditions {
				if c.Type == v1alpha1.Reconciling || c.Type == v1alpha1.Stalled {
					c.Message = ""
					got = append(got, c)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
		})
	}
}
