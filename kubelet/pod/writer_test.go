package pod

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/pod/plan"
)

// writing runs a test with a writer of the status of testPod, in a bubble of its own time.
func writing(t *testing.T, pod *v1.Pod, react func() error, test func(w *writer, api *fake.Clientset, patches *atomic.Int32)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewClientset(pod)
		var patches atomic.Int32
		api.PrependReactor("patch", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			patches.Add(1)
			err := react()
			return err != nil, nil, err
		})
		w := newWriter(t.Context(), api, record.NewFakeRecorder(1000), newInbox())
		defer w.stop()
		test(w, api, &patches)
	})
}

func statusOf(phase v1.PodPhase, message string) v1.PodStatus {
	return v1.PodStatus{Phase: phase, Message: message}
}

func TestWriterLatestWins(t *testing.T) {
	pod := testPod(nil)
	writing(t, pod, func() error { time.Sleep(time.Second); return nil }, func(w *writer, api *fake.Clientset, patches *atomic.Int32) {
		w.set(pod, statusOf(v1.PodRunning, "a"), false)
		time.Sleep(500 * time.Millisecond) // the first write is under way
		w.set(pod, statusOf(v1.PodRunning, "b"), true)
		w.set(pod, statusOf(v1.PodRunning, "c"), true)
		time.Sleep(time.Minute)
		got, err := api.CoreV1().Pods("default").Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil || got.Status.Message != "c" || patches.Load() != 2 {
			t.Errorf("%q after %d writes, %v", got.Status.Message, patches.Load(), err)
		}
		if !w.set(got, statusOf(v1.PodRunning, "c"), true) || patches.Load() != 2 {
			t.Error("what the API server has is written again")
		}
	})
}

func TestWriterWaitsWithWhatNobodyActsOn(t *testing.T) {
	pod := testPod(nil)
	writing(t, pod, func() error { return nil }, func(w *writer, _ *fake.Clientset, patches *atomic.Int32) {
		w.set(pod, statusOf(v1.PodPending, "creating"), false)
		time.Sleep(settleTime / 2)
		w.set(pod, statusOf(v1.PodRunning, ""), false)
		synctest.Wait()
		if n := patches.Load(); n != 1 {
			t.Errorf("%d writes, want one, of the running Pod, at once", n)
		}
	})
}

func TestWriterTellsTheEndOfADeletedPodOnce(t *testing.T) {
	running := v1.ContainerState{Running: &v1.ContainerStateRunning{}}
	ended := v1.ContainerState{Terminated: &v1.ContainerStateTerminated{}}
	status := func(phase v1.PodPhase, main, other v1.ContainerState) v1.PodStatus {
		return v1.PodStatus{Phase: phase, ContainerStatuses: []v1.ContainerStatus{{Name: "main", State: main}, {Name: "other", State: other}}}
	}
	pod := testPod(func(p *v1.Pod) {
		p.DeletionTimestamp, p.Finalizers = &metav1.Time{Time: time.Now()}, []string{"example.com/keep"}
		p.Status = status(v1.PodRunning, running, running)
	})
	writing(t, pod, func() error { return nil }, func(w *writer, _ *fake.Clientset, patches *atomic.Int32) {
		w.set(pod, status(v1.PodRunning, ended, running), false)
		synctest.Wait()
		if n := patches.Load(); n != 1 {
			t.Fatalf("%d writes when one of two containers has ended, want one at once", n)
		}
		w.set(pod, status(v1.PodRunning, ended, ended), false)
		synctest.Wait()
		w.set(pod, status(v1.PodSucceeded, ended, ended), true)
		synctest.Wait()
		if n := patches.Load(); n != 2 {
			t.Errorf("%d writes, want one more for all that came after the last container", n)
		}
	})
}

func TestWriterRetries(t *testing.T) {
	pod := testPod(nil)
	failures := 3
	writing(t, pod, func() error {
		if failures--; failures >= 0 {
			return errors.New("the API server is away")
		}
		return nil
	}, func(w *writer, api *fake.Clientset, _ *atomic.Int32) {
		w.set(pod, statusOf(v1.PodRunning, "a"), true)
		time.Sleep(time.Minute)
		if got, err := api.CoreV1().Pods("default").Get(t.Context(), "web", metav1.GetOptions{}); err != nil || got.Status.Message != "a" {
			t.Errorf("%q, %v", got.Status.Message, err)
		}
	})
}

func TestWriterGivesUpOnAPodThatIsGone(t *testing.T) {
	pod := testPod(nil)
	for name, gone := range map[string]error{
		"gone": apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, "web"),
		"another in its place": apierrors.NewInvalid(v1.SchemeGroupVersion.WithKind("Pod").GroupKind(), "web",
			field.ErrorList{field.Invalid(field.NewPath("metadata", "uid"), pod.UID, "field is immutable")}),
	} {
		t.Run(name, func(t *testing.T) {
			writing(t, pod, func() error { return gone }, func(w *writer, _ *fake.Clientset, patches *atomic.Int32) {
				w.set(pod, statusOf(v1.PodRunning, "a"), true)
				time.Sleep(time.Hour)
				if n := patches.Load(); n != 1 {
					t.Errorf("%d writes", n)
				}
			})
		})
	}
}

// TestWriterRefused counts the writes and the reports of an hour in which one status is not taken.
func TestWriterRefused(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	denied := func(code int32) error {
		return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: code, Message: `admission webhook "w" denied the request`}}
	}
	cases := map[string]struct {
		reason  string
		err     error
		refused bool
	}{
		"invalid":       {"validation says the same of the same status", apierrors.NewInvalid(v1.SchemeGroupVersion.WithKind("Pod").GroupKind(), "web", nil), true},
		"forbidden":     {"the node may not write it", apierrors.NewForbidden(pods, "web", errors.New("no")), true},
		"webhook":       {"what webhooks answer without a code of their own", denied(400), true},
		"teapot":        {"a webhook may answer with any code", denied(418), true},
		"broken":        {"a webhook that does not answer for long is as good as a refusal", apierrors.NewInternalError(errors.New("failed calling webhook")), true},
		"conflict":      {"the next attempt starts from the newest Pod", apierrors.NewConflict(pods, "web", errors.New("changed")), false},
		"busy":          {"it is overloaded", apierrors.NewTooManyRequests("busy", 1), false},
		"unknown to it": {"certificates are renewed", apierrors.NewUnauthorized("who?"), false},
		"away":          {"it did not answer", errors.New("connection refused"), false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := testPod(nil)
			writing(t, pod, func() error { return tc.err }, func(w *writer, _ *fake.Clientset, patches *atomic.Int32) {
				w.set(pod, statusOf(v1.PodFailed, "a"), true)
				time.Sleep(time.Hour)
				synctest.Wait()
				decided := w.set(pod, statusOf(v1.PodFailed, "a"), true)
				events := w.recorder.(*record.FakeRecorder).Events
				if decided != tc.refused || (len(events) > 0) != tc.refused || w.inbox.empty() == tc.refused {
					t.Errorf("%s\ndecided: %v, %d Events, inbox empty: %v", tc.reason, decided, len(events), w.inbox.empty())
				}
				for range len(events) {
					if e := <-events; e != "Warning FailedStatusUpdate writing the status: "+tc.err.Error() {
						t.Errorf("Event %q", e)
					}
				}
				if n := patches.Load(); n < 10 || tc.refused && n > 60 {
					t.Errorf("%d writes in an hour", n)
				}
			})
		})
	}
}

// TestWriterOffersAnotherStatusAtOnce refuses one status, and takes the next one while it backs
// off.
func TestWriterOffersAnotherStatusAtOnce(t *testing.T) {
	pod := testPod(nil)
	refusing := atomic.Bool{}
	refusing.Store(true)
	writing(t, pod, func() error {
		if refusing.Load() {
			return apierrors.NewBadRequest("denied")
		}
		return nil
	}, func(w *writer, api *fake.Clientset, patches *atomic.Int32) {
		w.set(pod, statusOf(v1.PodPending, "a"), true)
		time.Sleep(time.Hour)
		synctest.Wait()
		before := patches.Load()
		w.set(pod, statusOf(v1.PodPending, "a"), true)
		synctest.Wait()
		if n := patches.Load(); n != before {
			t.Error("the same status is offered again at once")
		}
		refusing.Store(false)
		w.set(pod, statusOf(v1.PodPending, "b"), false)
		synctest.Wait()
		if got, err := api.CoreV1().Pods("default").Get(t.Context(), "web", metav1.GetOptions{}); err != nil || got.Status.Message != "b" {
			t.Errorf("the API server has %q, %v", got.Status.Message, err)
		}
		if w.set(pod, statusOf(v1.PodPending, "a"), true) {
			t.Error("a status counts as refused after another one was taken")
		}
	})
}

func TestWriterKeepsConditionsOfOthers(t *testing.T) {
	pod := testPod(func(p *v1.Pod) {
		p.Status.Conditions = []v1.PodCondition{{Type: "example.com/theirs", Status: v1.ConditionTrue}, {Type: v1.PodReady, Status: v1.ConditionFalse}}
	})
	writing(t, pod, func() error { return nil }, func(w *writer, api *fake.Clientset, _ *atomic.Int32) {
		st := statusOf(v1.PodRunning, "")
		st.Conditions = []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}}
		w.set(pod, st, true)
		time.Sleep(time.Second)
		got, err := api.CoreV1().Pods("default").Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, c := podutil.GetPodCondition(&got.Status, "example.com/theirs"); c == nil || !podutil.IsPodReady(got) {
			t.Errorf("conditions: %+v", got.Status.Conditions)
		}
	})
}

// TestWriterSharesDisruptionTarget: several components set the condition, and a Pod has it once.
func TestWriterSharesDisruptionTarget(t *testing.T) {
	condition := func(reason string) v1.PodStatus {
		return v1.PodStatus{Conditions: []v1.PodCondition{{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: reason}}}
	}
	taint, own := condition("DeletionByTaintManager"), condition(v1.PodReasonTerminationByKubelet)
	for name, tc := range map[string]struct {
		reason           string
		have, want, next v1.PodStatus
	}{
		"Theirs": {"the condition of another component stays", taint, v1.PodStatus{}, taint},
		"Ours":   {"the node ends the Pod", v1.PodStatus{}, own, own},
		"Both":   {"what ends the Pod is what it ends with", taint, own, own},
	} {
		t.Run(name, func(t *testing.T) {
			got := withForeign(&v1.Pod{Status: tc.have}, tc.want)
			if diff := cmp.Diff(tc.next.Conditions, got.Conditions); diff != "" {
				t.Errorf("%s\nconditions -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

// TestStatusIsWrittenOnce: a status that is computed again needs no write.
func TestStatusIsWrittenOnce(t *testing.T) {
	now := time.Unix(1000, 0)
	s := plan.State{UID: "u1", Pod: testPod(nil), Runtime: cri.Pod{UID: "u1"}}
	s.Pod.Status.Conditions = []v1.PodCondition{{Type: "example.com/foreign", Status: v1.ConditionTrue}}
	first := plan.Status(s, now)
	s.Status, s.Pod.Status = &first, first
	if again := plan.Status(s, now.Add(time.Hour)); !equal(s.Pod, again) {
		t.Errorf("the writer would write it again:\n%s", cmp.Diff(first, again))
	}
}
