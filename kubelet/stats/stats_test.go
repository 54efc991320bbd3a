//go:build linux

package stats

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/volumes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const second = int64(1e9)

type fakeCRI struct {
	runtimeapi.RuntimeServiceClient
	runtimeapi.ImageServiceClient

	stats []*runtimeapi.PodSandboxStats
	err   error
	mount string
}

func (f fakeCRI) ListPodSandboxStats(context.Context, *runtimeapi.ListPodSandboxStatsRequest, ...grpc.CallOption) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	return &runtimeapi.ListPodSandboxStatsResponse{Stats: f.stats}, f.err
}

func (f fakeCRI) ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest, ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error) {
	return &runtimeapi.ListPodSandboxResponse{Items: []*runtimeapi.PodSandbox{{Id: "box", CreatedAt: 10 * second}}}, nil
}

func (f fakeCRI) ListContainers(context.Context, *runtimeapi.ListContainersRequest, ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	return &runtimeapi.ListContainersResponse{Containers: []*runtimeapi.Container{{Id: "abc", CreatedAt: 11 * second}}}, nil
}

func (f fakeCRI) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest, ...grpc.CallOption) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{{
		FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: f.mount}, UsedBytes: u(77), InodesUsed: u(7),
	}}}, nil
}

func u(n uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: n} }

func onePod(mount string) []*runtimeapi.PodSandboxStats {
	cpu := &runtimeapi.CpuUsage{Timestamp: 20 * second, UsageCoreNanoSeconds: u(5), UsageNanoCores: u(6)}
	memory := &runtimeapi.MemoryUsage{Timestamp: 20 * second, WorkingSetBytes: u(100), RssBytes: u(90)}
	return []*runtimeapi.PodSandboxStats{{
		Attributes: &runtimeapi.PodSandboxAttributes{Id: "box", Metadata: &runtimeapi.PodSandboxMetadata{Name: "web", Namespace: "default", Uid: "u1"}},
		Linux: &runtimeapi.LinuxPodSandboxStats{
			Cpu: cpu, Memory: memory, Process: &runtimeapi.ProcessUsage{ProcessCount: u(3)},
			Network: &runtimeapi.NetworkUsage{
				Timestamp: 20 * second, DefaultInterface: &runtimeapi.NetworkInterfaceUsage{Name: "eth0", RxBytes: u(1), TxBytes: u(2)},
				Interfaces: []*runtimeapi.NetworkInterfaceUsage{{Name: "eth0", RxBytes: u(1)}},
			},
			Containers: []*runtimeapi.ContainerStats{{
				Attributes: &runtimeapi.ContainerAttributes{Id: "abc", Metadata: &runtimeapi.ContainerMetadata{Name: "main"}},
				Cpu:        cpu, Memory: memory,
				WritableLayer: &runtimeapi.FilesystemUsage{Timestamp: 20 * second, FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: mount}, UsedBytes: u(1000), InodesUsed: u(10)},
			}},
		},
	}, {
		// It ended while it was measured: the runtime has no figures.
		Attributes: &runtimeapi.PodSandboxAttributes{Id: "gone", Metadata: &runtimeapi.PodSandboxMetadata{Name: "gone"}},
	}}
}

func TestSummary(t *testing.T) {
	dir := t.TempDir()
	logs := filepath.Join(dir, "default_web_u1", "main")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(logs, "0.log"), make([]byte, 50), 0o600); err != nil {
		t.Fatal(err)
	}
	cri := fakeCRI{stats: onePod(dir), mount: dir}
	measure := func(context.Context) map[types.UID][]volumes.VolumeStats {
		used := func(name string, bytes uint64) statsapi.VolumeStats {
			return statsapi.VolumeStats{Name: name, FsStats: statsapi.FsStats{UsedBytes: &bytes}}
		}
		return map[types.UID][]volumes.VolumeStats{"u1": {
			{VolumeStats: used("scratch", 3000), Ephemeral: true}, {VolumeStats: used("data", 5)},
		}}
	}
	p := New(Config{NodeName: "n1", Runtime: cri, Images: cri, RootDir: dir, PodLogsDir: dir, Volumes: measure})

	s, err := p.Summary(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	n := s.Node
	if n.CPU.UsageCoreNanoSeconds == nil || *n.Memory.WorkingSetBytes == 0 || *n.Fs.CapacityBytes == 0 ||
		n.Network == nil || n.Rlimit == nil || *n.Runtime.ImageFs.UsedBytes != 77 || n.StartTime.IsZero() {
		t.Errorf("the node: something is missing: %+v", n)
	}
	if len(s.Pods) != 1 || len(s.Pods[0].Containers) != 1 {
		t.Fatalf("got %+v", s.Pods)
	}
	pod, c := s.Pods[0], s.Pods[0].Containers[0]
	if d := cmp.Diff(statsapi.PodReference{Name: "web", Namespace: "default", UID: "u1"}, pod.PodRef); d != "" {
		t.Error(d)
	}
	if pod.StartTime.Unix() != 10 || c.StartTime.Unix() != 11 || *pod.Network.RxBytes != 1 || len(pod.Network.Interfaces) != 1 || *pod.ProcessStats.ProcessCount != 3 {
		t.Errorf("the pod: %+v", pod)
	}
	if *c.CPU.UsageNanoCores != 6 || *c.Memory.WorkingSetBytes != 100 || *c.Rootfs.UsedBytes != 1000 || *c.Logs.UsedBytes != 50 {
		t.Errorf("the container: %+v", c)
	}
	if got := ptr.Deref(pod.EphemeralStorage.UsedBytes, 0); got != 4050 {
		t.Errorf("writable layer, logs and the ephemeral volume are %d bytes, want 4050", got)
	}
	if v := pod.VolumeStats; len(v) != 2 || v[0].Name != "data" || *v[0].UsedBytes != 5 || v[1].Name != "scratch" {
		t.Errorf("the volumes: %+v", v)
	}

	s, err = p.Summary(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if s.Node.Fs != nil || s.Pods[0].Network != nil || s.Pods[0].VolumeStats != nil || s.Pods[0].Containers[0].Rootfs != nil {
		t.Error("only CPU and memory were asked for")
	}
}

func TestSummaryWithoutRuntime(t *testing.T) {
	boom := errors.New("connection refused")
	cri := fakeCRI{err: boom}
	if _, err := New(Config{Runtime: cri, Images: cri}).Summary(t.Context(), true); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
}

// sharedCRI is a runtime that has a Pod of ours only for those who ask by label.
type sharedCRI struct{ fakeCRI }

func (f sharedCRI) ListPodSandboxStats(ctx context.Context, in *runtimeapi.ListPodSandboxStatsRequest, opts ...grpc.CallOption) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	resp, err := f.fakeCRI.ListPodSandboxStats(ctx, in, opts...)
	if in.GetFilter().GetLabelSelector()["owner"] != "us" {
		theirs := onePod("")[0]
		theirs.Attributes.Metadata.Name = "theirs"
		resp.Stats = append(resp.Stats, theirs)
	}
	return resp, err
}

// TestSharedRuntime: what others run in the same runtime is no Pod of this node.
func TestSharedRuntime(t *testing.T) {
	dir := t.TempDir()
	cri := sharedCRI{fakeCRI{stats: onePod(dir), mount: dir}}
	for name, tc := range map[string]struct {
		reason string
		owned  map[string]string
		want   int
	}{
		"Own":    {"in a runtime of our own all is ours", nil, 2},
		"Shared": {"in one that is shared, what carries our label", map[string]string{"owner": "us"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := New(Config{NodeName: "n1", Runtime: cri, Images: cri, Owned: tc.owned, RootDir: dir, PodLogsDir: dir}).Summary(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			if len(s.Pods) != tc.want {
				t.Errorf("%s: %d Pods, want %d", tc.reason, len(s.Pods), tc.want)
			}
		})
	}
}
