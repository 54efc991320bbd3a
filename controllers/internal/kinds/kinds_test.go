package kinds_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers/internal/expectations"
	"flyball.dev/controllers/internal/kinds"
)

// TestThereAndBack: an object that is written and read again is the same, and has the group's
// apiVersion.
func TestThereAndBack(t *testing.T) {
	for _, version := range []schema.GroupVersion{appsv1.SchemeGroupVersion, v1alpha1.GroupVersion} {
		group, err := kinds.For(version)
		if err != nil {
			t.Fatal(err)
		}
		want := &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", Labels: map[string]string{"a": "b"}},
			Spec:       appsv1.DeploymentSpec{Replicas: new(int32(3)), Paused: true, Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{NodeName: "n"}}},
		}
		server := fake.NewClientBuilder().WithScheme(scheme()).Build()
		if _, err := group.Deployments.Create(t.Context(), server, want); err != nil {
			t.Fatal(err)
		}
		got, _, err := group.Deployments.Get(t.Context(), server, types.NamespacedName{Namespace: "ns", Name: "web"})
		if err != nil {
			t.Fatal(err)
		}
		if kind := got.GetObjectKind().GroupVersionKind(); kind != group.Deployments.GroupVersionKind {
			t.Errorf("%s: got kind %s", version, kind)
		}
		got.TypeMeta, got.ResourceVersion = want.TypeMeta, ""
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", version, diff)
		}
		list, err := group.Deployments.List(t.Context(), server, client.InNamespace("ns"))
		if err != nil || len(list) != 1 || list[0].Name != "web" || list[0].Kind != "Deployment" {
			t.Errorf("%s: listed %v, %v", version, list, err)
		}
	}
}

// TestPatchSaysWhatChanged: a patch holds the changed fields and the resourceVersion, so that
// fields that only the group knows stay as they are.
func TestPatchSaysWhatChanged(t *testing.T) {
	group, err := kinds.For(v1alpha1.GroupVersion)
	if err != nil {
		t.Fatal(err)
	}
	var sent string
	server := fake.NewClientBuilder().WithScheme(scheme()).WithInterceptorFuncs(interceptor.Funcs{
		Patch: func(_ context.Context, _ client.WithWatch, object client.Object, patch client.Patch, _ ...client.PatchOption) error {
			data, err := patch.Data(object)
			sent = string(data)
			return err
		},
	}).Build()
	before := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", ResourceVersion: "7"}, Spec: appsv1.ReplicaSetSpec{Replicas: new(int32(3))}}
	after := before.DeepCopy()
	after.Spec.Replicas = new(int32(5))
	if _, err := group.ReplicaSets.Patch(t.Context(), server, before, after); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"metadata":{"resourceVersion":"7"},"spec":{"replicas":5}}`, sent); diff != "" {
		t.Errorf("patch (-want +got):\n%s", diff)
	}
}

// TestOptions: what apps/v1 lacks is read, survives a change of the rest, and is written to the
// status of those that have a field for it.
func TestOptions(t *testing.T) {
	group, err := kinds.For(v1alpha1.GroupVersion)
	if err != nil {
		t.Fatal(err)
	}
	rolling := &v1alpha1.RollingUpdateDeployment{Partition: new(intstr.FromInt32(2))}
	rolling.MaxSurge = new(intstr.FromInt32(1))
	stored := &v1alpha1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"}, Spec: v1alpha1.DeploymentSpec{
		Strategy: v1alpha1.DeploymentStrategy{RollingUpdate: rolling}, Rollback: &v1alpha1.Rollback{OnProgressDeadlineExceeded: true},
	}}
	server := fake.NewClientBuilder().WithScheme(scheme()).WithObjects(stored).WithStatusSubresource(stored).Build()
	key := types.NamespacedName{Namespace: "ns", Name: "web"}
	d, was, err := group.Deployments.Get(t.Context(), server, key)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(v1alpha1.Options{Rollback: *stored.Spec.Rollback, Partition: rolling.Partition}, was); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(rolling.MaxSurge, d.Spec.Strategy.RollingUpdate.MaxSurge); diff != "" {
		t.Errorf("maxSurge (-want +got):\n%s", diff)
	}
	after := d.DeepCopy()
	after.Spec.Replicas = new(int32(5))
	if d, err = group.Deployments.Patch(t.Context(), server, d, after); err != nil {
		t.Fatal(err)
	}
	after = d.DeepCopy()
	after.Status.Replicas = 5
	is := v1alpha1.OptionsStatus{Selector: "app=web", AvailableReplicaSet: "web-1", Rollback: &v1alpha1.RollbackStatus{Reason: "CrashLoop"}}
	if err = group.Deployments.PatchStatus(t.Context(), server, expectations.New(nil), d, after, was.Status, is); err != nil {
		t.Fatal(err)
	}
	d, now, err := group.Deployments.Get(t.Context(), server, key)
	if err != nil {
		t.Fatal(err)
	}
	want := was
	want.Status = is
	if diff := cmp.Diff(want, now); diff != "" || d.Status.Replicas != 5 || *d.Spec.Replicas != 5 {
		t.Errorf("afterwards (-want +got):\n%s; %+v", diff, d)
	}
	apps, err := kinds.For(appsv1.SchemeGroupVersion)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(apps.Deployments.Write(d, v1alpha1.OptionsStatus{}), apps.Deployments.Write(d, is)); diff != "" {
		t.Errorf("apps/v1 keeps what it has no field for: %s", diff)
	}
	nothing := &v1alpha1.Deployment{Spec: v1alpha1.DeploymentSpec{Strategy: v1alpha1.DeploymentStrategy{DeploymentStrategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType}}}}
	if d, _ := group.Deployments.Read(nothing); util.MaxSurge(*withSize(d, 8)) != 2 || util.MaxUnavailable(*withSize(d, 8)) != 2 {
		t.Errorf("without rollingUpdate its defaults are missing: %+v", d.Spec.Strategy)
	}
}

func withSize(d *appsv1.Deployment, replicas int32) *appsv1.Deployment {
	d.Spec.Replicas = &replicas
	return d
}

func TestUnknownVersion(t *testing.T) {
	if _, err := kinds.For(schema.GroupVersion{Group: "batch", Version: "v1"}); err == nil {
		t.Error("no error")
	}
}

func scheme() *runtime.Scheme {
	known := runtime.NewScheme()
	_ = appsv1.AddToScheme(known)
	_ = v1alpha1.AddToScheme(known)
	return known
}
