package flyballtest_test

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"flyball.dev/flyballtest"
)

// serve serves the webhooks of these tests: one that refuses what is called bad, and one that
// converts.
func serve(t *testing.T, hooks flyballtest.Webhooks) *http.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/validate-widget", answer(func(review *admissionv1.AdmissionReview) {
		review.Response = &admissionv1.AdmissionResponse{
			UID: review.Request.UID, Allowed: review.Request.Name != "bad", Result: &metav1.Status{Message: "a bad name"},
		}
	}))
	mux.HandleFunc("/convert", answer(func(review *apiextensionsv1.ConversionReview) {
		review.Response = &apiextensionsv1.ConversionResponse{UID: review.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
		for _, object := range review.Request.Objects {
			review.Response.ConvertedObjects = append(review.Response.ConvertedObjects, runtime.RawExtension{Object: converted(object, review.Request.DesiredAPIVersion)})
		}
	}))
	listener, err := net.Listen("tcp", net.JoinHostPort(hooks.Host, strconv.Itoa(hooks.Port)))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() {
		if err := server.ServeTLS(listener, filepath.Join(hooks.CertDir, "tls.crt"), filepath.Join(hooks.CertDir, "tls.key")); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { _ = server.Close() })
	return server
}

// answer handles a review, which respond adds the response to.
func answer[Review any](respond func(*Review)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		review := new(Review)
		if err := json.NewDecoder(r.Body).Decode(review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		respond(review)
		_ = json.NewEncoder(w).Encode(review)
	}
}

// converted is an object in another version: the size of v1 is the length of v2.
func converted(raw runtime.RawExtension, version string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	_ = o.UnmarshalJSON(raw.Raw) // it comes from the API server
	from, to := "size", "length"
	if version == "example.com/v1" {
		from, to = to, from
	}
	if value, found, _ := unstructured.NestedInt64(o.Object, "spec", from); found {
		o.Object["spec"] = map[string]any{to: value}
	}
	o.SetAPIVersion(version)
	return o
}

func TestConversion(t *testing.T) {
	cluster := flyballtest.Start(t, flyballtest.WithoutControllers(), flyballtest.WithCRDs("testdata/conversion"), flyballtest.WithConversion("gadgets.example.com"))
	_, client := clients(t, cluster)
	server := serve(t, cluster.Webhooks())
	kinds := map[string]string{"gadgets": "Gadget", "gizmos": "Gizmo"}
	check := func(when string) {
		t.Helper()
		for resource := range kinds {
			got, err := client.Resource(schema.GroupVersionResource{Group: "example.com", Version: "v2", Resource: resource}).
				Namespace("default").Get(t.Context(), "one", metav1.GetOptions{})
			if err != nil {
				t.Fatalf("%s: reading %s in version 2: %v", when, resource, err)
			}
			if length, _, _ := unstructured.NestedInt64(got.Object, "spec", "length"); length != 3 {
				t.Errorf("%s: %s in version 2 is %v, want the length 3", when, resource, got.Object)
			}
		}
	}
	for resource, kind := range kinds {
		o := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "example.com/v1", "kind": kind, "metadata": map[string]any{"name": "one"}, "spec": map[string]any{"size": int64(3)},
		}}
		v1 := client.Resource(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: resource}).Namespace("default")
		if _, err := v1.Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	check("created in version 1")

	// A manager is stopped while a cluster is taken back, and its webhooks with it.
	checkpoint, err := cluster.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	for resource := range kinds {
		v2 := client.Resource(schema.GroupVersionResource{Group: "example.com", Version: "v2", Resource: resource}).Namespace("default")
		if err := v2.Delete(t.Context(), "one", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	_ = server.Close()
	began := time.Now()
	if err := cluster.Restore(checkpoint); err != nil {
		t.Fatal(err)
	}
	t.Logf("restored in %s without the webhook", time.Since(began).Round(time.Millisecond))
	serve(t, cluster.Webhooks())
	check("restored")
}
