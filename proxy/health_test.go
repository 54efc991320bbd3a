package proxy

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestHealthPortIsTriedAgain frees a port that was taken: it is opened without any change of its
// Service.
func TestHealthPortIsTriedAgain(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	other, err := net.Listen("tcp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(other.Addr().(*net.TCPAddr).Port)
	h := newHealth()
	defer func() {
		_ = h.close()
		if err := goleak.Find(leaks); err != nil {
			t.Error(err)
		}
	}()
	if err := h.set(Service{Name: "default/web", HealthCheckNodePort: port}); err == nil {
		t.Fatal("a port that is taken was opened")
	}
	for _, next := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second} { // less and less often
		if h.due == nil || len(h.failed) == 0 || h.backoff.Duration != next {
			t.Errorf("the port is still taken: got %v after the next try, want %v", h.backoff.Duration, next)
		}
		h.retry()
	}
	for range 20 {
		h.retry()
	}
	if h.backoff.Duration != 5*time.Minute {
		t.Errorf("a port that stays taken is tried every %v, want 5m", h.backoff.Duration)
	}
	_ = other.Close()
	h.retry()
	if h.due != nil || len(h.failed) > 0 {
		t.Fatal("the port is free, and not opened")
	}
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port)) //nolint:noctx // on loopback
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("it answers %s, want 503: there is no endpoint", resp.Status)
	}
	http.DefaultClient.CloseIdleConnections()
}
