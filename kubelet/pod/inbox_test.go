package pod

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flyball.dev/kubelet/pod/plan"
)

// TestInbox: of an object only the newest state counts, nothing else is lost, and one token wakes
// the worker.
func TestInbox(t *testing.T) {
	pod := func(version string) *v1.Pod { return &v1.Pod{ObjectMeta: metav1.ObjectMeta{ResourceVersion: version}} }
	in := newInbox()
	if !in.empty() || len(in.wake) != 0 {
		t.Error("a new inbox is not empty")
	}
	first, second := &op{}, &op{}
	for _, u := range []update{
		{pod: pod("1")},
		{results: []result{{op: first}}},
		{runtime: true},
		{mirror: pod("2")},
		{deleted: pod("3")},
		{termination: &plan.Termination{Reason: "first"}},
		{termination: &plan.Termination{Reason: "second"}},
		{},
		{retry: true},
		{mirrorDeleted: pod("4")},
		{pod: pod("5")},
		{results: []result{{op: second}}},
	} {
		in.put(u)
	}
	if in.empty() || len(in.wake) != 1 {
		t.Errorf("the inbox has %d tokens, empty: %v", len(in.wake), in.empty())
	}
	switch u := in.take(); {
	case u.pod == nil || u.pod.ResourceVersion != "5" || u.deleted != nil:
		t.Errorf("the Pod is %v, deleted: %v", u.pod, u.deleted)
	case u.mirror != nil || u.mirrorDeleted == nil:
		t.Errorf("the mirror Pod is %v, deleted: %v", u.mirror, u.mirrorDeleted)
	case !u.runtime || !u.retry || u.termination.Reason != "first":
		t.Errorf("runtime: %v, retry: %v, termination: %v", u.runtime, u.retry, u.termination)
	case len(u.results) != 2 || u.results[0].op != first || u.results[1].op != second:
		t.Errorf("results: %v", u.results)
	}
	if !in.empty() {
		t.Error("the inbox is not empty after take")
	}
	in.put(update{}) // says nothing, and wakes the worker
	if in.empty() {
		t.Error("an update that says nothing is lost")
	}
}
