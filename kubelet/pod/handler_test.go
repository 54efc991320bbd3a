package pod

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestHandlerDoesNotWait: the watch goes on while a worker decides, and writes to a slow disk, what
// Pods may have.
func TestHandlerDoesNotWait(t *testing.T) {
	m := New(Config{})
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u"}}
	m.workers[pod.UID] = newWorker(m, pod.UID)
	m.ctx = t.Context()
	m.admissions.mu.Lock()
	defer m.admissions.mu.Unlock()
	handled := make(chan struct{})
	go func() {
		defer close(handled)
		m.podDeleted(pod)
		m.podDeleted(pod) // and nobody has taken the first one's token
	}()
	select {
	case <-handled:
	case <-time.After(10 * time.Second):
		t.Fatal("the handler waits for the lock of the admissions")
	}
	if len(m.freed) != 1 {
		t.Error("nobody is notified that resources were freed")
	}
}
