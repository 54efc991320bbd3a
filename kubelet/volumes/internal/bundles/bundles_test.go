package bundles

import (
	"context"
	"encoding/pem"
	"errors"
	"hash/maphash"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func block(der string, headers map[string]string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Headers: headers, Bytes: []byte(der)}))
}

func bundle(name, signer, alive string, anchors ...string) *certificatesv1.ClusterTrustBundle {
	b := &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer}}
	if alive != "" {
		b.Labels = map[string]string{"alive": alive}
	}
	for _, a := range anchors {
		b.Spec.TrustBundle += "a comment\n" + block(a, nil)
	}
	return b
}

// anchorsOf is what a PEM text says, in alphabetical order.
func anchorsOf(t *testing.T, text []byte) []string {
	t.Helper()
	var out []string
	for len(text) > 0 {
		b, rest := pem.Decode(text)
		if b == nil || len(b.Headers) > 0 {
			t.Fatalf("not only bare PEM blocks: %s", text)
		}
		out = append(out, string(b.Bytes))
		text = rest
	}
	slices.Sort(out)
	return out
}

func TestAnchors(t *testing.T) {
	client := fake.NewClientset(
		bundle("alone", "", "yes", "r0"),
		bundle("s:1:a", "s/1", "yes", "r1", "r2"),
		bundle("s:1:b", "s/1", "no", "r2", "r3"),
		bundle("s:2:a", "s/2", "yes", "r4"),
	)
	store := New(client, func([]types.UID) {})
	defer store.Close()
	store.Hold("u", []*Source{{Name: new("alone")}})
	yes := &metav1.LabelSelector{MatchLabels: map[string]string{"alive": "yes"}}
	cases := map[string]struct {
		reason string
		source v1.ClusterTrustBundleProjection
		want   []string
		err    string
	}{
		"Name":      {reason: "a bundle without a signer", source: v1.ClusterTrustBundleProjection{Name: new("alone")}, want: []string{"r0"}},
		"NameOther": {reason: "or with one", source: v1.ClusterTrustBundleProjection{Name: new("s:2:a")}, want: []string{"r4"}},
		"Missing": {
			reason: "a name that is not there", source: v1.ClusterTrustBundleProjection{Name: new("none")},
			err: `clustertrustbundle.certificates.k8s.io "none" not found`,
		},
		"MissingOptional": {reason: "is an empty file if it is optional", source: v1.ClusterTrustBundleProjection{Name: new("none"), Optional: new(true)}},
		"Labels":          {reason: "of a signer, those with the label", source: v1.ClusterTrustBundleProjection{SignerName: new("s/1"), LabelSelector: yes}, want: []string{"r1", "r2"}},
		"All":             {reason: "an empty selector picks all, each certificate once", source: v1.ClusterTrustBundleProjection{SignerName: new("s/1"), LabelSelector: &metav1.LabelSelector{}}, want: []string{"r1", "r2", "r3"}},
		"NoSelector": {
			reason: "none picks nothing", source: v1.ClusterTrustBundleProjection{SignerName: new("s/1")},
			err: `combination of signerName and labelSelector matched zero ClusterTrustBundles: signer "s/1", labels ""`,
		},
		"NoSelectorOptional": {reason: "which may be allowed", source: v1.ClusterTrustBundleProjection{SignerName: new("s/1"), Optional: new(true)}},
		"Neither":            {reason: "validation lets no such thing pass", err: "ClusterTrustBundle projection requires either name or signerName to be set"},
		"BadSelector": {
			reason: "nor this",
			source: v1.ClusterTrustBundleProjection{SignerName: new("s/1"), LabelSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "?"}}}},
			err:    `parsing the label selector of a ClusterTrustBundle projection: "?" is not a valid label selector operator`,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			text, err := store.Anchors(t.Context(), &tc.source)
			if err == nil && text == nil || err != nil && err.Error() != tc.err || err == nil && tc.err != "" {
				t.Fatalf("%s: %q, error %v, want %s", tc.reason, text, err, tc.err)
			}
			if diff := cmp.Diff(tc.want, anchorsOf(t, text)); diff != "" {
				t.Errorf("%s\nanchors -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestNormalize(t *testing.T) {
	list := []*certificatesv1.ClusterTrustBundle{
		{Spec: certificatesv1.ClusterTrustBundleSpec{TrustBundle: "text\n" + block("a", map[string]string{"k": "v"}) + "more\n" + block("b", nil)}},
		bundle("x", "", "", "b", "c", "d", "e", "f"),
	}
	seed := maphash.MakeSeed()
	first := normalize(list, seed)
	if diff := cmp.Diff([]string{"a", "b", "c", "d", "e", "f"}, anchorsOf(t, first)); diff != "" {
		t.Errorf("anchors -want +got:\n%s", diff)
	}
	slices.Reverse(list)
	if again := normalize(list, seed); string(again) != string(first) {
		t.Error("the order changes with that of the bundles, so that files are rewritten for nothing")
	}
	differs := func() bool { return string(normalize(list, maphash.MakeSeed())) != string(first) }
	if !slices.ContainsFunc(make([]int, 20), func(int) bool { return differs() }) {
		t.Error("the order is the same with every seed, so that somebody will rely on it")
	}
}

func TestChanges(t *testing.T) {
	client, changed, watching := fake.NewClientset(), make(chan []types.UID, 10), make(chan struct{}, 10)
	// Unlike a real API, the fake one forgets what happens between the list and the watch.
	client.PrependWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		w, err := client.Tracker().Watch(action.GetResource(), action.GetNamespace())
		watching <- struct{}{}
		return true, w, err
	})
	store := New(client, func(holders []types.UID) { changed <- holders })
	defer store.Close()
	all := &Source{SignerName: new("s/1"), LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"alive": "yes"}}}
	store.Hold("by-name", []*Source{{Name: new("b")}})
	store.Hold("by-signer", []*Source{all})
	// Read, so that what comes now are changes.
	if _, err := store.Anchors(t.Context(), &Source{Name: new("b"), Optional: new(true)}); err != nil {
		t.Fatal(err)
	}
	<-watching
	api := client.CertificatesV1().ClusterTrustBundles()
	steps := []struct {
		reason string
		do     func() error
		want   []types.UID
	}{
		{"one that both ask for has come", func() error {
			_, err := api.Create(t.Context(), bundle("b", "s/1", "yes", "r1"), metav1.CreateOptions{})
			return err
		}, []types.UID{"by-name", "by-signer"}},
		{"a label that only one asked for is gone", func() error {
			_, err := api.Update(t.Context(), bundle("b", "s/1", "no", "r1"), metav1.UpdateOptions{})
			return err
		}, []types.UID{"by-name", "by-signer"}},
		{"now only one sees it change", func() error {
			_, err := api.Update(t.Context(), bundle("b", "s/1", "no", "r2"), metav1.UpdateOptions{})
			return err
		}, []types.UID{"by-name"}},
		{"and go", func() error { return api.Delete(t.Context(), "b", metav1.DeleteOptions{}) }, []types.UID{"by-name"}},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		got := <-changed
		slices.Sort(got)
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%s: changed -want +got:\n%s", step.reason, diff)
		}
	}
}

func TestNobodyNeedsIt(t *testing.T) {
	client := fake.NewClientset()
	store := New(client, func([]types.UID) {})
	if _, err := store.Anchors(t.Context(), &Source{Name: new("b"), Optional: new(true)}); err == nil {
		t.Error("Anchors() succeeded without anybody who holds a query")
	}
	store.Hold("u", []*Source{{Name: new("b")}})
	if _, err := store.Anchors(t.Context(), &Source{Name: new("b"), Optional: new(true)}); err != nil {
		t.Error(err)
	}
	store.Hold("u", nil)
	if _, err := store.Anchors(t.Context(), &Source{Name: new("b"), Optional: new(true)}); err == nil {
		t.Error("Anchors() succeeded after the last holder has gone")
	}
	store.Close()
	store.Hold("u", []*Source{{Name: new("b")}})
	store.Close()
}

func TestUnreadable(t *testing.T) {
	client := fake.NewClientset()
	failed := make(chan struct{}, 100)
	client.PrependReactor("list", "clustertrustbundles", func(clienttesting.Action) (bool, runtime.Object, error) {
		failed <- struct{}{}
		return true, nil, apierrors.NewForbidden(certificatesv1.Resource("clustertrustbundles"), "", errors.New("not for you"))
	})
	store := New(client, func([]types.UID) {})
	defer store.Close()
	store.Hold("u", []*Source{{Name: new("b")}})
	<-failed
	<-failed // the first failure was noted before the second attempt
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := store.Anchors(ctx, &Source{Name: new("b"), Optional: new(true)})
	if err == nil || !strings.Contains(err.Error(), "not for you") {
		t.Errorf("Anchors() = %v, want the cause", err)
	}
}
