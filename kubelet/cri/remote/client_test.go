package remote

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestBounded(t *testing.T) {
	own, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for name, tc := range map[string]struct {
		reason string
		ctx    context.Context
		req    any
		want   time.Duration // 0: none
	}{
		"Bounded": {"a runtime that hangs does not block the caller", t.Context(), &runtimeapi.ListContainersRequest{}, time.Minute},
		"Own":     {"who knows better says so", own, &runtimeapi.StopContainerRequest{Timeout: 120}, time.Hour},
		"Pull":    {"a pull is as long as the image is large", t.Context(), &runtimeapi.PullImageRequest{}, 0},
		"Version": {"the first question waits for the runtime to come up", t.Context(), &runtimeapi.VersionRequest{}, 0},
		"Command": {"a command takes as long as it runs", t.Context(), &runtimeapi.ExecSyncRequest{}, 0},
		"Timeout": {"unless the runtime is to end it", t.Context(), &runtimeapi.ExecSyncRequest{Timeout: 120}, 3 * time.Minute},
		"Grace":   {"the runtime waits for the container first", t.Context(), &runtimeapi.StopContainerRequest{Timeout: 120}, 3 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			err := bounded(time.Minute)(tc.ctx, "", tc.req, nil, nil,
				func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
					at, ok := ctx.Deadline()
					if left := time.Until(at).Round(time.Minute); ok != (tc.want != 0) || ok && left != tc.want {
						t.Errorf("%s: deadline %t in %s, want %s", tc.reason, ok, left, tc.want)
					}
					return nil
				})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHung asks a runtime that takes calls and never answers.
func TestHung(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := Dial("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Observe(ctx, "u1"); !IsHung(err) {
		t.Errorf("observing a hung runtime: %v", err)
	}
}

func TestHealthy(t *testing.T) {
	c := New(&fakeService{}, nil)
	if err := c.Healthy(); err != nil {
		t.Errorf("a runtime that was not asked yet: %v", err)
	}
	c.listed = time.Now().Add(-relistThreshold - time.Second)
	if err := c.Healthy(); err == nil {
		t.Error("a runtime that is silent for long is healthy")
	}
	if err := c.Relist(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Healthy(); err != nil {
		t.Errorf("after a relist: %v", err)
	}
}
