//go:build linux

package kubelet

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/util/sets"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/cri"
)

// sharedRuntime has sandboxes of several users of CRI, each with one container, and notes what is done to which.
type sharedRuntime struct {
	runtimeapi.RuntimeServiceClient
	sandboxes []*runtimeapi.PodSandbox

	mu   sync.Mutex
	done []string
}

func (r *sharedRuntime) did(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done = append(r.done, what)
}

func (r *sharedRuntime) ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest, ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error) {
	return &runtimeapi.ListPodSandboxResponse{Items: slices.Clone(r.sandboxes)}, nil
}

func (r *sharedRuntime) ListContainers(context.Context, *runtimeapi.ListContainersRequest, ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	list := &runtimeapi.ListContainersResponse{}
	for _, s := range r.sandboxes {
		list.Containers = append(list.Containers, &runtimeapi.Container{
			Id: "in " + s.Id, PodSandboxId: s.Id, State: runtimeapi.ContainerState_CONTAINER_RUNNING,
		})
	}
	return list, nil
}

func (r *sharedRuntime) StopContainer(_ context.Context, in *runtimeapi.StopContainerRequest, _ ...grpc.CallOption) (*runtimeapi.StopContainerResponse, error) {
	r.did("stop " + in.ContainerId)
	return &runtimeapi.StopContainerResponse{}, nil
}

func (r *sharedRuntime) StopPodSandbox(_ context.Context, in *runtimeapi.StopPodSandboxRequest, _ ...grpc.CallOption) (*runtimeapi.StopPodSandboxResponse, error) {
	r.did("stop " + in.PodSandboxId)
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

func (r *sharedRuntime) RemovePodSandbox(_ context.Context, in *runtimeapi.RemovePodSandboxRequest, _ ...grpc.CallOption) (*runtimeapi.RemovePodSandboxResponse, error) {
	r.did("remove " + in.PodSandboxId)
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

func TestStopPods(t *testing.T) {
	all := []string{"marked", "known", "theirs", "nobodys"}
	for name, tc := range map[string]struct {
		reason string
		cfg    Config
		known  []string
		want   []string
	}{
		"Shared":  {"others' sandboxes go on", Config{SharedRuntime: true, Owner: "/ours"}, []string{"known"}, []string{"marked", "known"}},
		"Marked":  {"the label is enough", Config{SharedRuntime: true, Owner: "/ours"}, nil, []string{"marked"}},
		"Nothing": {"an agent that never ran has none", Config{SharedRuntime: true, Owner: "/elsewhere"}, nil, []string{}},
		"Own":     {"our own runtime has no other users, and older versions set no label", Config{Owner: "/ours"}, nil, all},
	} {
		t.Run(name, func(t *testing.T) {
			rt := &sharedRuntime{}
			for _, uid := range all {
				s := &runtimeapi.PodSandbox{Id: uid, Metadata: &runtimeapi.PodSandboxMetadata{Uid: uid}}
				switch uid {
				case "marked":
					s.Labels = cri.OwnedBy("/ours")
				case "theirs":
					s.Labels = cri.OwnedBy("/theirs")
				}
				rt.sandboxes = append(rt.sandboxes, s)
			}
			got, err := stopPods(t.Context(), rt, tc.cfg.owned(), sets.New(tc.known...))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s\nstopPods() -want +got:\n%s", tc.reason, diff)
			}
			var done []string
			for _, id := range tc.want {
				done = append(done, "stop in "+id, "stop "+id, "remove "+id)
			}
			slices.Sort(done)
			slices.Sort(rt.done)
			if diff := cmp.Diff(done, rt.done); diff != "" {
				t.Errorf("%s\ndone in the runtime -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}
