package remote

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestOperations(t *testing.T) {
	c := New(&fakeService{}, nil)
	for _, err := range []error{nil, errors.New("no such image")} {
		_ = c.metrics.observe(t.Context(), runtimeapi.ImageService_PullImage_FullMethodName, nil, nil, nil,
			func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return err })
	}
	want := `
# HELP kubelet_runtime_operations_errors_total Number of calls of the container runtime that failed, by operation.
# TYPE kubelet_runtime_operations_errors_total counter
kubelet_runtime_operations_errors_total{operation_type="pull_image"} 1
# HELP kubelet_runtime_operations_total Number of calls of the container runtime, by operation.
# TYPE kubelet_runtime_operations_total counter
kubelet_runtime_operations_total{operation_type="pull_image"} 2
`
	if err := testutil.GatherAndCompare(gathered(c), strings.NewReader(want),
		"kubelet_runtime_operations_total", "kubelet_runtime_operations_errors_total"); err != nil {
		t.Error(err)
	}
}

func TestOperation(t *testing.T) {
	for method, want := range map[string]string{
		"Version": "version", "Status": "status", "RuntimeConfig": "runtime_config", "UpdateRuntimeConfig": "update_runtime_config",
		"RunPodSandbox": "run_podsandbox", "StopPodSandbox": "stop_podsandbox", "RemovePodSandbox": "remove_podsandbox",
		"PodSandboxStatus": "podsandbox_status", "ListPodSandbox": "list_podsandbox",
		"UpdatePodSandboxResources": "update_podsandbox_resources",
		"PodSandboxStats":           "podsandbox_stats", "ListPodSandboxStats": "list_podsandbox_stats",
		"CreateContainer": "create_container", "StartContainer": "start_container", "StopContainer": "stop_container",
		"RemoveContainer": "remove_container", "ListContainers": "list_containers", "ContainerStatus": "container_status",
		"UpdateContainerResources": "update_container", "ReopenContainerLog": "reopen_container_log",
		"ContainerStats": "container_stats", "ListContainerStats": "list_container_stats",
		"ExecSync": "exec_sync", "Exec": "exec", "Attach": "attach", "PortForward": "port_forward",
		"ListImages": "list_images", "ImageStatus": "image_status", "PullImage": "pull_image", "RemoveImage": "remove_image",
		"ImageFsInfo": "image_fs_info",
	} {
		if got := operation("/runtime.v1.Service/" + method); got != want {
			t.Errorf("operation(%s) = %s, want %s", method, got, want)
		}
	}
}

func TestRunning(t *testing.T) {
	box := func(uid string, state runtimeapi.PodSandboxState) *runtimeapi.PodSandbox {
		return &runtimeapi.PodSandbox{Id: uid, State: state, Metadata: &runtimeapi.PodSandboxMetadata{Uid: uid}}
	}
	c := New(&fakeService{
		sandboxes: []*runtimeapi.PodSandbox{box("a", runtimeapi.PodSandboxState_SANDBOX_READY), box("b", runtimeapi.PodSandboxState_SANDBOX_NOTREADY)},
		containers: []*runtimeapi.Container{
			{Id: "1", State: runtimeapi.ContainerState_CONTAINER_RUNNING},
			{Id: "2", State: runtimeapi.ContainerState_CONTAINER_EXITED},
			{Id: "3", State: runtimeapi.ContainerState_CONTAINER_RUNNING},
		},
	}, nil)
	want := `
# HELP kubelet_running_containers Number of containers, by state.
# TYPE kubelet_running_containers gauge
kubelet_running_containers{container_state="created"} 0
kubelet_running_containers{container_state="exited"} 1
kubelet_running_containers{container_state="running"} 2
kubelet_running_containers{container_state="unknown"} 0
# HELP kubelet_running_pods Number of Pods whose sandbox is ready.
# TYPE kubelet_running_pods gauge
kubelet_running_pods 1
`
	if err := testutil.GatherAndCompare(gathered(c), strings.NewReader(want), "kubelet_running_pods", "kubelet_running_containers"); err != nil {
		t.Error(err)
	}
}

// TestRunningOfOurs: what others have in the same runtime is not counted.
func TestRunningOfOurs(t *testing.T) {
	ours := map[string]string{"flyball.dev/owner": "us"}
	c := New(&fakeService{
		sandboxes: []*runtimeapi.PodSandbox{
			{Id: "1", Labels: ours, Metadata: &runtimeapi.PodSandboxMetadata{Uid: "a"}}, {Id: "2", Metadata: &runtimeapi.PodSandboxMetadata{Uid: "b"}},
		},
		containers: []*runtimeapi.Container{
			{Id: "3", Labels: ours, State: runtimeapi.ContainerState_CONTAINER_RUNNING}, {Id: "4", State: runtimeapi.ContainerState_CONTAINER_RUNNING},
		},
	}, nil)
	c.Owned = ours
	want := `
# HELP kubelet_running_pods Number of Pods whose sandbox is ready.
# TYPE kubelet_running_pods gauge
kubelet_running_pods 1
# HELP kubelet_running_containers Number of containers, by state.
# TYPE kubelet_running_containers gauge
kubelet_running_containers{container_state="created"} 0
kubelet_running_containers{container_state="exited"} 0
kubelet_running_containers{container_state="running"} 1
kubelet_running_containers{container_state="unknown"} 0
`
	if err := testutil.GatherAndCompare(gathered(c), strings.NewReader(want), "kubelet_running_pods", "kubelet_running_containers"); err != nil {
		t.Error(err)
	}
}

// hung is a runtime that does not answer.
type hung struct {
	runtimeapi.RuntimeServiceClient
}

func (hung) ListPodSandbox(ctx context.Context, _ *runtimeapi.ListPodSandboxRequest, _ ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (hung) ListContainers(ctx context.Context, _ *runtimeapi.ListContainersRequest, _ ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestScrapeOfHungRuntime: Prometheus waits 10 s, and gets the other series before.
func TestScrapeOfHungRuntime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(hung{}, nil)
		registry, begun := gathered(c), time.Now()
		n, err := testutil.GatherAndCount(registry, "kubelet_pleg_last_seen_seconds")
		if err != nil || n != 1 {
			t.Errorf("%d other series, error %v", n, err)
		}
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("the scrape took %s", took)
		}
	})
}

func TestRelistIsMeasured(t *testing.T) {
	c := New(&fakeService{}, nil)
	for range 3 {
		if err := c.Relist(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	families, err := gathered(c).Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]uint64{}
	for _, f := range families {
		counts[f.GetName()] = f.Metric[0].GetHistogram().GetSampleCount()
	}
	if lists, intervals := counts["kubelet_pleg_relist_duration_seconds"], counts["kubelet_pleg_relist_interval_seconds"]; lists != 3 || intervals != 2 {
		t.Errorf("three relists: %d durations and %d intervals, want 3 and 2", lists, intervals)
	}
}

func gathered(c *Client) prometheus.Gatherer {
	r := prometheus.NewRegistry()
	r.MustRegister(c.Collectors()...)
	return r
}
