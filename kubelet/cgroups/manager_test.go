//go:build linux

package cgroups

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	libcgroups "github.com/opencontainers/cgroups"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// hostManager works on the real cgroups of this host, under a name of its own.
func hostManager(tb testing.TB) *Manager {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Skip("making cgroups needs root")
	}
	m, err := New(fmt.Sprintf("flyball-test-%d", os.Getpid()))
	if err != nil {
		tb.Skipf("no usable cgroups: %v", err)
	}
	tb.Cleanup(func() {
		if err := m.Remove(); err != nil {
			tb.Errorf("cleaning up: %v", err)
		}
	})
	return m
}

// read returns a file of a controller's cgroup.
func read(t *testing.T, m *Manager, controller, path, file string) string {
	t.Helper()
	dir := m.hierarchy.mounts[""]
	if !m.hierarchy.v2 {
		dir = m.hierarchy.mounts[controller]
	}
	raw, err := os.ReadFile(filepath.Join(dir, path, file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

func TestLifeOnHost(t *testing.T) {
	m := hostManager(t)
	if err := m.EnsureNode(resources("cpu", "2", "memory", "1Gi")); err != nil {
		t.Fatal(err)
	}
	burstable := pod("b", v1.ResourceRequirements{
		Requests: resources("cpu", "500m"), Limits: resources("cpu", "1", "memory", "128Mi"),
	})
	parents := map[string]string{}
	for _, p := range []*v1.Pod{burstable, pod("e", v1.ResourceRequirements{}), burstable} {
		parent, err := m.EnsurePod(p)
		if err != nil {
			t.Fatal(err)
		}
		parents[p.Name] = parent
	}
	want := map[string]string{"b": "/" + m.root + "/burstable/podb", "e": "/" + m.root + "/besteffort/pode"}
	if diff := cmp.Diff(want, parents); diff != "" {
		t.Errorf("cgroup parents -want +got:\n%s", diff)
	}
	if !m.hierarchy.v2 {
		got := map[string]string{
			"memory":       read(t, m, "memory", parents["b"], "memory.limit_in_bytes"),
			"shares":       read(t, m, "cpu", parents["b"], "cpu.shares"),
			"quota":        read(t, m, "cpu", parents["b"], "cpu.cfs_quota_us"),
			"class shares": read(t, m, "cpu", "/"+m.root+"/burstable", "cpu.shares"),
			"top memory":   read(t, m, "memory", "/"+m.root, "memory.limit_in_bytes"),
		}
		want := map[string]string{"memory": "134217728", "shares": "512", "quota": "100000", "class shares": "512", "top memory": "1073741824"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("limits -want +got:\n%s", diff)
		}
	}
	// A new Manager, as after a restart, leaves the weight of the class as it is.
	again, err := New(m.root)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.EnsureNode(resources("cpu", "2", "memory", "1Gi")); err != nil {
		t.Fatal(err)
	}
	if again.shares != m.shares || m.shares < 500 || m.shares > 512 {
		t.Errorf("shares of the class are %d, and %d after a restart; want 512", m.shares, again.shares)
	}
	uids, err := m.ListPods()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]types.UID{"b", "e"}, uids); diff != "" {
		t.Errorf("ListPods() -want +got:\n%s", diff)
	}
}

func TestRemovePodKills(t *testing.T) {
	m := hostManager(t)
	parent, err := m.EnsurePod(pod("x", v1.ResourceRequirements{}))
	if err != nil {
		t.Fatal(err)
	}
	if empty, err := m.Empty("x"); err != nil || !empty {
		t.Errorf("Empty() = %v, %v, of a new cgroup", empty, err)
	}
	// A process that does not end by itself, in a cgroup below the Pod's.
	left := exec.Command(os.Args[0], "-test.run=TestSleeper")
	left.Env = append(os.Environ(), "FLYBALL_SLEEP=1")
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- left.Wait() }()
	if err := m.hierarchy.ensure(parent+"/container", Limits{}); err != nil {
		t.Fatal(err)
	}
	for controller, dir := range m.hierarchy.mounts {
		if controller == "devices" {
			continue // made by the runtime, for its containers
		}
		if err := libcgroups.WriteCgroupProc(filepath.Join(dir, parent, "container"), left.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	if empty, err := m.Empty("x"); err != nil || empty {
		t.Errorf("Empty() = %v, %v, while a process runs in it", empty, err)
	}
	for range 2 { // the second time it is gone already
		if err := m.RemovePod("x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the process ended with %v, want killed", err)
	}
	if uids, err := m.ListPods(); err != nil || len(uids) != 0 {
		t.Errorf("ListPods() = %v, %v, want none", uids, err)
	}
}

// TestSleeper is not a test: it is the process that TestRemovePodKills starts.
func TestSleeper(*testing.T) {
	if os.Getenv("FLYBALL_SLEEP") != "" {
		time.Sleep(time.Hour)
	}
}

func TestUnifiedTree(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "kubepods", "burstable", "podx"), 0o755); err != nil {
		t.Fatal(err)
	}
	h := hierarchy{v2: true, mounts: map[string]string{"": dir}}
	names, err := h.children("/kubepods/burstable")
	if err != nil || !names.Has("podx") || names.Len() != 1 {
		t.Errorf("children() = %v, %v, want podx", names, err)
	}
	if err := h.remove("/kubepods/missing"); err != nil {
		t.Errorf("remove() of a missing cgroup: %v", err)
	}
}

// TestResizeOnHost grows and shrinks a cgroup as a resize does, and reads it back.
func TestResizeOnHost(t *testing.T) {
	m := hostManager(t)
	sized := func(cpu, memory string) *v1.Pod {
		r := resources("cpu", cpu, "memory", memory)
		return pod("r", v1.ResourceRequirements{Requests: r, Limits: r})
	}
	limits := func(p *v1.Pod) map[string]int64 {
		got := map[string]int64{}
		for name, n := range map[string]number{"shares": sharesNumber, "quota": quotaNumber, "memory": memoryNumber} {
			v, err := m.hierarchy.read(podPath(m.root, v1.PodQOSGuaranteed, p.UID), n)
			if err != nil {
				t.Fatal(err)
			}
			got[name] = v
		}
		return got
	}
	if _, err := m.EnsurePod(sized("1", "64Mi")); err != nil {
		t.Fatal(err)
	}
	other := sized("500m", "128Mi")
	if err := m.GrowPod(other); err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{"shares": 1024, "quota": 100000, "memory": 128 << 20}
	if diff := cmp.Diff(want, limits(other)); diff != "" {
		t.Errorf("grown -want +got:\n%s", diff)
	}
	if _, _, lower, err := m.PodMemory(sized("500m", "64Mi")); err != nil || !lower {
		t.Errorf("64Mi would be lower: %v, %v", lower, err)
	}
	if usage, limit, lower, err := m.PodMemory(other); err != nil || lower || limit != 128<<20 || usage > limit {
		t.Errorf("usage %d, limit %d, lower %v, %v", usage, limit, lower, err)
	}
	if _, err := m.EnsurePod(other); err != nil {
		t.Fatal(err)
	}
	if got := limits(other)["quota"]; got != 50000 {
		t.Errorf("quota is %d after the shrinking", got)
	}
	free := pod("free", v1.ResourceRequirements{Requests: resources("cpu", "100m")})
	at, err := m.EnsurePod(free)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []number{quotaNumber, memoryNumber} {
		if v, err := m.hierarchy.read(at, n); err != nil || v != unlimited {
			t.Errorf("limit %s of a Pod without limits is %d, %v", n.v2, v, err)
		}
	}
}
