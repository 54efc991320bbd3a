package approver

import (
	"context"
	"crypto/x509"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// TestRun: a request that comes before its Node is approved when the Node does; one that is wrong
// gets an Event, once.
func TestRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	client, watching := fake.NewClientset(), make(chan struct{}, 10)
	// Unlike a real API, the fake one forgets what happens between the list and the watch.
	client.PrependWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		w, err := client.Tracker().Watch(action.GetResource(), action.GetNamespace())
		watching <- struct{}{}
		return true, w, err
	})
	requests := client.CertificatesV1().CertificateSigningRequests()
	ended, ready := make(chan error, 1), make(chan struct{})
	go func() {
		ended <- Run(ctx, Config{Client: client, Protected: protected, Ready: func() { close(ready) }})
	}()
	for _, began := range []<-chan struct{}{ready, watching, watching} { // the watches are of requests and of Nodes
		select {
		case <-began:
		case err := <-ended:
			t.Fatalf("Run returned %v", err)
		}
	}

	wrong := request(t, func(_ *x509.CertificateRequest, s *certificatesv1.CertificateSigningRequestSpec) {
		s.Username = "alice"
	})
	wrong.Name = "wrong"
	early := request(t, nil)
	early.CreationTimestamp = metav1.NewTime(time.Now().Add(time.Minute)) // so that no Event says that it waits
	for _, r := range []*certificatesv1.CertificateSigningRequest{early, wrong} {
		if _, err := requests.Create(ctx, r, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "an Event says why", func() bool {
		events, err := client.CoreV1().Events("").List(ctx, metav1.ListOptions{})
		return err == nil && len(events.Items) == 1 && strings.Contains(events.Items[0].Message, "alice")
	})
	if _, err := client.CoreV1().Nodes().Create(ctx, node("n2", "192.0.2.2"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the request is approved", func() bool {
		r, err := requests.Get(ctx, "csr-1", metav1.GetOptions{})
		return err == nil && len(r.Status.Conditions) == 1 && r.Status.Conditions[0].Type == certificatesv1.CertificateApproved &&
			r.Status.Conditions[0].Status == v1.ConditionTrue && strings.Contains(r.Status.Conditions[0].Message, "n2")
	})
	if r, err := requests.Get(ctx, "wrong", metav1.GetOptions{}); err != nil || len(r.Status.Conditions) > 0 {
		t.Errorf("the wrong request has %v (%v), want nothing", r.Status.Conditions, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run returned %v", err)
	}
}

// TestWaiting: one Event reports a request that waits for long, whether or not anything changes
// meanwhile. The request is approved as soon as nothing forbids it.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		mine, other := node("n2", "192.0.2.2"), node("n4", "192.0.2.2")
		r := request(t, nil)
		r.CreationTimestamp = metav1.Now()
		client := fake.NewClientset(mine, other, r)
		ended := make(chan error, 1)
		go func() { ended <- Run(ctx, Config{Client: client, Protected: protected}) }()
		eventsAfter := func(after time.Duration) []v1.Event {
			time.Sleep(after)
			synctest.Wait()
			events, err := client.CoreV1().Events("").List(ctx, metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return events.Items
		}
		if events := eventsAfter(reportAfter / 2); len(events) > 0 {
			t.Errorf("an Event came too early: %v", events[0].Message)
		}
		events := eventsAfter(reportAfter)
		if len(events) != 1 || events[0].Reason != reasonWaiting || !strings.Contains(events[0].Message, "n4 reports too") {
			t.Fatalf("the Events are %v, want one that names the other Node", events)
		}
		for i := range 3 {
			other.Labels = map[string]string{"x": strconv.Itoa(i)}
			if _, err := client.CoreV1().Nodes().Update(ctx, other, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			if again := eventsAfter(time.Minute); len(again) != 1 || again[0].Count > 1 {
				t.Fatalf("the Event was repeated: %v", again)
			}
		}
		if err := client.CoreV1().Nodes().Delete(ctx, other.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if r, err := client.CertificatesV1().CertificateSigningRequests().Get(ctx, r.Name, metav1.GetOptions{}); err != nil || len(r.Status.Conditions) != 1 {
			t.Errorf("after the other Node is gone, its conditions are %v (%v)", r.Status.Conditions, err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 30 seconds it is still not so that %s", what)
		}
	}
}
