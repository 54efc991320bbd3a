package preview_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers"
	"flyball.dev/controllers/internal/testenv"
	"flyball.dev/controllers/preview"
)

var env testenv.Env

// No loop serves apps/v1 here, so its next step is never done.
func TestMain(m *testing.M) {
	testenv.Main(m, &env, func(ctx context.Context, cfg *rest.Config, ready func()) error {
		return controllers.Run(ctx, controllers.Config{Client: cfg, Ready: ready, Kinds: []schema.GroupVersion{v1alpha1.GroupVersion}})
	})
}

// steps are a preview's lines, with the hash in the name of the new ReplicaSet left out.
func steps(p preview.Preview, hash string) []string {
	var lines []string
	for _, step := range p.Steps {
		line := step.What + ", because " + step.Why
		if hash != "" {
			line = strings.ReplaceAll(line, hash, "HASH")
		}
		lines = append(lines, line)
	}
	return lines
}

func hashIn(p preview.Preview) string {
	if len(p.Steps) == 0 {
		return ""
	}
	_, rest, _ := strings.Cut(p.Steps[0].What, "web-")
	hash, _, _ := strings.Cut(rest, " ")
	return hash
}

func TestSaysWhatComesNext(t *testing.T) {
	namespace := env.Namespace(t)
	apps := env.Groups["apps"]
	d, err := apps.Deployments.Create(t.Context(), env.Client, testenv.Deployment(namespace, "web", 3))
	if err != nil {
		t.Fatal(err)
	}
	p, err := preview.Of(t.Context(), env.Client, namespace, "deployment/web")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"create ReplicaSet web-HASH with 3 Pods, because no ReplicaSet has the current template",
		"number the template revision 1, because the current template has another revision",
	}
	if diff := cmp.Diff(want, steps(p, hashIn(p))); diff != "" || p.Object != "deployment.apps/web" {
		t.Errorf("%s: steps (-want +got):\n%s", p.Object, diff)
	}
	if sets, err := apps.ReplicaSets.List(t.Context(), env.Client, client.InNamespace(namespace)); err != nil || len(sets) != 0 {
		t.Errorf("something was done: %v %v", sets, err)
	}

	set := testenv.ReplicaSet(namespace, "set", 2)
	set.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(d, apps.Deployments.GroupVersionKind)}
	if _, err := apps.ReplicaSets.Create(t.Context(), env.Client, set); err != nil {
		t.Fatal(err)
	}
	p, err = preview.Of(t.Context(), env.Client, namespace, "rs.apps/set")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"create 2 Pods, because 2 Pods wanted, 0 there"}, steps(p, "")); diff != "" {
		t.Errorf("ReplicaSet (-want +got):\n%s", diff)
	}
}

func TestManifestThatIsNotApplied(t *testing.T) {
	namespace := env.Namespace(t)
	ours := env.Groups["flyball"]
	d, err := ours.Deployments.Create(t.Context(), env.Client, testenv.Deployment(namespace, "web", 3))
	if err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, func() error {
		current, _, err := ours.Deployments.Get(t.Context(), env.Client, client.ObjectKeyFromObject(d))
		if err == nil && current.Status.AvailableReplicas != 3 {
			err = fmt.Errorf("status %+v", current.Status)
		}
		return err
	})
	manifest := func(name, image string, replicas int64) *unstructured.Unstructured {
		spec, err := runtime.DefaultUnstructuredConverter.ToUnstructured(testenv.Deployment(namespace, name, int32(replicas)))
		if err != nil {
			t.Fatal(err)
		}
		object := &unstructured.Unstructured{Object: spec}
		delete(object.Object, "status")
		unstructured.RemoveNestedField(object.Object, "spec", "strategy")
		unstructured.RemoveNestedField(object.Object, "metadata", "creationTimestamp")
		unstructured.RemoveNestedField(object.Object, "spec", "template", "metadata", "creationTimestamp")
		object.SetGroupVersionKind(ours.Deployments.GroupVersionKind)
		containers, _, _ := unstructured.NestedSlice(object.Object, "spec", "template", "spec", "containers")
		containers[0].(map[string]any)["image"] = image
		_ = unstructured.SetNestedSlice(object.Object, containers, "spec", "template", "spec", "containers")
		return object
	}
	tests := map[string]struct {
		reason string
		object *unstructured.Unstructured
		want   []string
	}{
		"Same":  {"nothing changes", manifest("web", "image:1", 3), nil},
		"Scale": {"the size does", manifest("web", "image:1", 5), []string{"scale ReplicaSet web-OLD from 3 to 5, because 5 Pods wanted"}},
		"Image": {"the template does", manifest("web", "image:2", 3), []string{
			"create ReplicaSet web-HASH with 1 Pods, because no ReplicaSet has the current template",
			"number the template revision 2, because the current template has another revision",
		}},
		"New": {"it is not there yet", manifest("web-2", "image:1", 1), []string{
			"create ReplicaSet web-HASH with 1 Pods, because no ReplicaSet has the current template",
			"number the template revision 1, because the current template has another revision",
		}},
	}
	sets, err := ours.ReplicaSets.List(t.Context(), env.Client, client.InNamespace(namespace))
	if err != nil || len(sets) != 1 {
		t.Fatal(sets, err)
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := preview.OfManifest(t.Context(), env.Client, test.object)
			if err != nil {
				t.Fatal(err)
			}
			for i := range p.Steps {
				p.Steps[i].What = strings.ReplaceAll(p.Steps[i].What, sets[0].Name, "web-OLD")
			}
			if diff := cmp.Diff(test.want, steps(p, strings.TrimPrefix(hashIn(p), "OLD"))); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
		})
	}
	bad := manifest("web", "image:1", -1)
	if _, err := preview.OfManifest(t.Context(), env.Client, bad); err == nil || !strings.Contains(err.Error(), "spec.replicas") {
		t.Errorf("an invalid manifest: %v", err)
	}
}

func TestAmbiguousOrUnknownNames(t *testing.T) {
	namespace := env.Namespace(t)
	for _, group := range env.Groups {
		if _, err := group.Deployments.Create(t.Context(), env.Client, testenv.Deployment(namespace, "twin", 0)); err != nil {
			t.Fatal(err)
		}
	}
	for reference, want := range map[string]string{
		"deployment/twin":              "name one of them: deployment.apps.flyball.dev/twin or deployment.apps/twin",
		"deployment/nobody":            "neither apps.flyball.dev nor apps has one",
		"deployment.apps/nobody":       "not found",
		"job/x":                        "write deployment/NAME or replicaset/NAME",
		"deployment":                   "write deployment/NAME or replicaset/NAME",
		"deployment.batch/x":           "neither apps.flyball.dev nor apps has one",
		"Deployment.apps/twin":         "",
		"deploy.apps.flyball.dev/twin": "",
	} {
		_, err := preview.Of(t.Context(), env.Client, namespace, reference)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", reference, err, want)
		}
	}
}
