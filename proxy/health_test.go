package proxy

import (
	"fmt"
	"net"
	"net/http"
	"testing"
)

// TestHealthPortIsTriedAgain frees a port that was taken: it is opened without any change of its Service.
func TestHealthPortIsTriedAgain(t *testing.T) {
	other, err := net.Listen("tcp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(other.Addr().(*net.TCPAddr).Port)
	h := newHealth()
	defer func() { _ = h.close() }()
	if err := h.set(Service{Name: "default/web", HealthCheckNodePort: port}); err == nil {
		t.Fatal("a port that is taken was opened")
	}
	if h.retry() {
		t.Error("the port is still taken")
	}
	_ = other.Close()
	if !h.retry() || len(h.failed) > 0 {
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
