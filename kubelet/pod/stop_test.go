package pod

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/pod/plan"
)

// stops keeps the timeout that a runtime got, in seconds.
type stops struct {
	runtimeapi.RuntimeServiceClient
	timeout int64
}

func (s *stops) StopContainer(_ context.Context, in *runtimeapi.StopContainerRequest, _ ...grpc.CallOption) (*runtimeapi.StopContainerResponse, error) {
	s.timeout = in.Timeout
	return &runtimeapi.StopContainerResponse{}, nil
}

// TestGraceIsNotCutShort: a runtime counts whole seconds, so the rest of a container's grace period is
// rounded up.
func TestGraceIsNotCutShort(t *testing.T) {
	for name, test := range map[string]struct {
		reason string
		left   time.Duration
		most   int64
	}{
		"Part":  {reason: "a fraction of a second counts", left: 10*time.Second + 400*time.Millisecond, most: 11},
		"Least": {reason: "as with upstream's kubelet", left: 0, most: 2},
		"Past":  {reason: "the deadline was passed before the call", left: -time.Minute, most: 2},
	} {
		t.Run(name, func(t *testing.T) {
			runtime, deadline := &stops{}, time.Now().Add(test.left)
			j := job{m: &Manager{cfg: Config{CRI: runtime}}}
			if err := j.stopContainer(t.Context(), plan.StopContainer{ID: "c", Name: "c", Deadline: deadline}); err != nil {
				t.Fatal(err)
			}
			least := max(time.Until(deadline), plan.MinGrace)
			if got := time.Duration(runtime.timeout) * time.Second; got < least || runtime.timeout > test.most {
				t.Errorf("%s: the runtime kills after %s, want from %s to %d s", test.reason, got, least, test.most)
			}
		})
	}
}
