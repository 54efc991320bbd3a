//go:build linux

package cadvisor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/cadvisor/lib/utils/sysfs"
	"github.com/google/cadvisor/lib/utils/sysinfo"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/cgroups"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeRuntime has a sandbox "boxN" and a container "mainN" for each Pod.
type fakeRuntime struct {
	runtimeapi.RuntimeServiceClient

	pods []*v1.Pod
}

func (f fakeRuntime) ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest, ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error) {
	r := &runtimeapi.ListPodSandboxResponse{}
	for _, p := range f.pods {
		r.Items = append(r.Items, &runtimeapi.PodSandbox{
			Id: "box" + p.Name, CreatedAt: 10e9,
			Metadata: &runtimeapi.PodSandboxMetadata{Name: p.Name, Namespace: p.Namespace, Uid: string(p.UID)},
		})
	}
	return r, nil
}

func (f fakeRuntime) ListContainers(context.Context, *runtimeapi.ListContainersRequest, ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	r := &runtimeapi.ListContainersResponse{}
	for _, p := range f.pods {
		r.Containers = append(r.Containers, &runtimeapi.Container{
			Id: "main" + p.Name, PodSandboxId: "box" + p.Name, CreatedAt: 11e9,
			Image:    &runtimeapi.ImageSpec{Image: "sha256:1", UserSpecifiedImage: "example.test/web:1"},
			Metadata: &runtimeapi.ContainerMetadata{Name: "main"},
		})
	}
	return r, nil
}

// world is n Pods with cgroups on this host, each with a sandbox and a container; a process that
// works now and then is in each container of the first.
func world(tb testing.TB, n int) Config {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Skip("making cgroups needs root")
	}
	m, err := cgroups.New(fmt.Sprintf("flyball-cadvisor-%d", os.Getpid()))
	if err != nil {
		tb.Skipf("no usable cgroups: %v", err)
	}
	tb.Cleanup(func() {
		if err := m.Remove(); err != nil {
			tb.Errorf("cleaning up: %v", err)
		}
	})
	list := v1.ResourceList{v1.ResourceCPU: resource.MustParse("1"), v1.ResourceMemory: resource.MustParse("1Gi")}
	if err := m.EnsureNode(list); err != nil {
		tb.Skipf("no usable cgroups: %v", err)
	}
	var runtime fakeRuntime
	for i := range n {
		p := &v1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: strconv.Itoa(i), Namespace: "default", UID: types.UID(strconv.Itoa(i))},
			Spec:       v1.PodSpec{Containers: []v1.Container{{Name: "main", Resources: v1.ResourceRequirements{Limits: list, Requests: list}}}},
		}
		if _, err := m.EnsurePod(p); err != nil {
			tb.Fatal(err)
		}
		runtime.pods = append(runtime.pods, p)
	}
	groups, err := m.Groups()
	if err != nil {
		tb.Fatal(err)
	}
	for _, g := range groups {
		if g.Pod == "" {
			continue
		}
		for _, name := range []string{"box", "main"} {
			for _, dir := range g.Dirs {
				if err := os.MkdirAll(filepath.Join(dir, name+string(g.Pod)), 0o755); err != nil {
					tb.Fatal(err)
				}
			}
		}
	}
	return Config{
		Runtime: runtime, Cgroups: m, Dirs: []string{tb.TempDir()},
		Capacity: v1.ResourceList{v1.ResourceCPU: resource.MustParse("2"), v1.ResourceMemory: resource.MustParse("2Gi")},
		System:   v1.NodeSystemInfo{MachineID: "m", BootID: "b", SystemUUID: "u"},
	}
}

// work takes some CPU time and 8 MB of memory once it is asked to, and keeps the memory.
const work = `read go; x=$(head -c 8000000 /dev/zero | tr '\0' a); echo done; read end`

// fill starts a process in a cgroup that has worked.
func fill(t *testing.T, cfg Config, name string) {
	t.Helper()
	groups, err := cfg.Cgroups.Groups()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		if g.Name != name {
			continue
		}
		cmd := exec.Command("sh", "-c", work)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		for _, dir := range g.Dirs {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.WriteString(in, "\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
}

// scrape returns what is served, parsed.
func scrape(t *testing.T, cfg Config) map[string]*dto.MetricFamily {
	t.Helper()
	handler, err := NewHandler(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics/cadvisor", nil))
	if w.Code != 200 {
		t.Fatalf("got %d: %s", w.Code, w.Body)
	}
	if _, err := promlint.New(bytes.NewReader(w.Body.Bytes())).Lint(); err != nil {
		t.Errorf("promlint cannot parse what is served: %v", err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// series are those of a family as name{label="value",…}, without empty labels, with their values.
func series(f *dto.MetricFamily) map[string]float64 {
	out := map[string]float64{}
	for _, m := range f.GetMetric() {
		var labels []string
		for _, l := range m.GetLabel() {
			if l.GetValue() != "" && l.GetName() != "id" {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
		}
		out[strings.Join(labels, ",")] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return out
}

// hung is a runtime that does not answer.
type hung struct{ fakeRuntime }

func (hung) ListPodSandbox(ctx context.Context, _ *runtimeapi.ListPodSandboxRequest, _ ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestHungRuntime: Prometheus waits 10 s, and gets what is not the runtime's to say before.
func TestHungRuntime(t *testing.T) {
	cfg := world(t, 1)
	cfg.Runtime = hung{}
	begun := time.Now()
	got := scrape(t, cfg)
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("the scrape took %s", took)
	}
	if e := series(got["container_scrape_error"])[""]; e != 1 {
		t.Errorf("container_scrape_error is %v, want 1", e)
	}
	for _, family := range []string{"machine_cpu_cores", "container_fs_limit_bytes"} {
		if len(series(got[family])) == 0 {
			t.Errorf("%s is missing", family)
		}
	}
}

// TestDevicesOfNow: a device that was added since the beginning has a name.
func TestDevicesOfNow(t *testing.T) {
	begun := &hostInfo{}
	now := begun.withDevices()
	devices, err := sysinfo.GetBlockDeviceInfo(sysfs.NewRealSysFs())
	if err != nil {
		t.Skipf("this host shows no devices: %v", err)
	}
	if diff := cmp.Diff(devices, now.DiskMap); diff != "" {
		t.Errorf("devices (-there +known):\n%s", diff)
	}
	if begun.DiskMap != nil {
		t.Error("what other scrapes read was changed")
	}
}

func TestHandler(t *testing.T) {
	cfg := world(t, 2)
	fill(t, cfg, "main0")
	got := scrape(t, cfg)
	if e := series(got["container_scrape_error"])[""]; e != 0 {
		t.Fatal("the scrape failed")
	}
	const main = "container=main,image=example.test/web:1,name=main0,namespace=default,pod=0"
	tests := map[string]struct {
		reason, family, series string
		atLeast                float64
	}{
		"CPU of a container":        {"The first query of every dashboard.", "container_cpu_usage_seconds_total", "container=main,cpu=total,image=example.test/web:1,name=main0,namespace=default,pod=0", 1e-9},
		"CPU of a Pod":              {"The Pod's own cgroup has no container.", "container_cpu_usage_seconds_total", "cpu=total,namespace=default,pod=0", 1e-9},
		"CPU of the node":           {"The root has no Pod.", "container_cpu_usage_seconds_total", "cpu=total", 0.01},
		"working set":               {"", "container_memory_working_set_bytes", main, 1},
		"rss":                       {"", "container_memory_rss", main, 1},
		"cache":                     {"", "container_memory_cache", main, 0},
		"swap":                      {"", "container_memory_swap", main, 0},
		"processes":                 {"", "container_processes", main, 1},
		"descriptors":               {"", "container_file_descriptors", main, 1},
		"throttled, of a limited":   {"The Pod has a CPU limit.", "container_cpu_cfs_throttled_periods_total", "namespace=default,pod=0", 0},
		"limit":                     {"", "container_spec_memory_limit_bytes", "namespace=default,pod=0", 1 << 30},
		"quota":                     {"", "container_spec_cpu_quota", "namespace=default,pod=0", 100000},
		"created, as CRI says":      {"", "container_start_time_seconds", main, 11},
		"the Pod, as its sandbox":   {"", "container_start_time_seconds", "namespace=default,pod=0", 10},
		"killed for want of memory": {"", "container_oom_events_total", main, 0},
		"cores":                     {"", "machine_cpu_cores", "", 1},
		"memory":                    {"", "machine_memory_bytes", "", 1 << 20},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			all := series(got[tc.family])
			if strings.HasPrefix(tc.family, "machine_") {
				for _, v := range all { // labelled by the IDs of this host
					all = map[string]float64{"": v}
				}
			}
			if v, ok := all[tc.series]; !ok || v < tc.atLeast {
				t.Errorf("%s got %v (there: %t), want at least %v, among\n%v", tc.reason, v, ok, tc.atLeast, all)
			}
		})
	}
}

func TestNetworkOfTheNodeIsNotThePods(t *testing.T) {
	cfg := world(t, 1)
	fill(t, cfg, "box0") // in our own network namespace, as a Pod with hostNetwork
	for s := range series(scrape(t, cfg)["container_network_receive_bytes_total"]) {
		if strings.Contains(s, "pod=") {
			t.Errorf("a Pod in the network of the node is said to have received what the node did: %s", s)
		}
	}
}

func TestIDOf(t *testing.T) {
	for name, want := range map[string]string{
		"abc": "abc", "crio-abc": "abc", "cri-containerd-abc.scope": "abc", "crio-conmon-abc": "",
	} {
		if got := idOf(name); got != want {
			t.Errorf("the cgroup %s is of %q, want %q", name, got, want)
		}
	}
}

// BenchmarkScrape is a node of 100 Pods: 200 cgroups of sandboxes and containers, 100 of Pods.
func BenchmarkScrape(b *testing.B) {
	handler, err := NewHandler(world(b, 100))
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequestWithContext(b.Context(), "GET", "/metrics/cadvisor", nil)
	for b.Loop() {
		handler.ServeHTTP(httptest.NewRecorder(), r)
	}
}

func TestFileSystems(t *testing.T) {
	dir := t.TempDir()
	registry := prometheus.NewRegistry()
	registry.MustRegister(fileSystems{dirs: []string{dir, dir, "/nowhere"}})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) != 4 {
		t.Fatalf("got %d metrics of the file system of %s, want limit, usage, inodes and free inodes", len(families), dir)
	}
	for _, f := range families {
		if len(f.Metric) != 1 {
			t.Errorf("%s has %d series, want one for each file system", f.GetName(), len(f.Metric))
		}
	}
}
