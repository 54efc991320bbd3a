package deployment_test

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/polymorphichelpers"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestKubectlRollout does what kubectl rollout status, history, undo, pause, resume and restart do,
// with kubectl's code.
func TestKubectlRollout(t *testing.T) {
	t.Parallel()
	w := &world{T: t, Group: env.Groups["apps"], namespace: env.Namespace(t)}
	clientset, err := kubernetes.NewForConfig(env.Admin)
	if err != nil {
		t.Fatal(err)
	}
	kind := schema.GroupKind{Group: "apps", Kind: "Deployment"}
	current := func() *appsv1.Deployment {
		t.Helper()
		d, err := clientset.AppsV1().Deployments(w.namespace).Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	patch := func(data []byte, err error) {
		t.Helper()
		if err == nil {
			_, err = clientset.AppsV1().Deployments(w.namespace).Patch(t.Context(), "web", types.StrategicMergePatchType, data, metav1.PatchOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	edited := func(edit func(*appsv1.Deployment) ([]byte, error)) {
		t.Helper()
		before := current()
		after := before.DeepCopy()
		after.SetGroupVersionKind(w.Deployments.GroupVersionKind)
		if _, err := edit(after); err != nil {
			t.Fatal(err)
		}
		patch(client.StrategicMergeFrom(before).Data(after))
	}

	w.apply(image("1"))
	w.expectComplete()
	w.apply(image("2"))
	w.expectComplete()

	viewer := polymorphichelpers.DeploymentStatusViewer{}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(current())
	if err != nil {
		t.Fatal(err)
	}
	if message, done, err := viewer.Status(&unstructured.Unstructured{Object: content}, 0); err != nil || !done || !strings.Contains(message, "successfully rolled out") {
		t.Fatalf("rollout status: %q %v %v", message, done, err)
	}
	history, err := polymorphichelpers.HistoryViewerFor(kind, clientset)
	if err != nil {
		t.Fatal(err)
	}
	revisions, err := history.GetHistory(w.namespace, "web")
	if err != nil || len(revisions) != 2 || revisions[1] == nil || revisions[2] == nil {
		t.Fatalf("rollout history: %v %v", revisions, err)
	}

	rollbacker, err := polymorphichelpers.RollbackerFor(kind, clientset)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rollbacker.Rollback(current(), nil, 0, cmdutil.DryRunNone); err != nil {
		t.Fatal("rollout undo:", err)
	}
	w.expectHistory("rolled back", "2 image:2 0", "3 image:1 3")

	edited(func(d *appsv1.Deployment) ([]byte, error) { return polymorphichelpers.ObjectRestarterFn(d) })
	w.expectHistory("restarted", "2 image:2 0", "3 image:1 0", "4 image:1 3")
	w.expectComplete()

	edited(func(d *appsv1.Deployment) ([]byte, error) { return polymorphichelpers.ObjectPauserFn(d) })
	w.apply(image("3"))
	w.expect("paused", func(d *appsv1.Deployment) bool { return d.Spec.Paused && d.Status.UpdatedReplicas == 0 })
	edited(func(d *appsv1.Deployment) ([]byte, error) { return polymorphichelpers.ObjectResumerFn(d) })
	w.expectHistory("resumed", "2 image:2 0", "3 image:1 0", "4 image:1 0", "5 image:3 3")
	w.expectComplete()
}
