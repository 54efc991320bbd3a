package pressure

import (
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/pkg/apis/scheduling"
	"k8s.io/kubernetes/pkg/kubelet/eviction/api"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"flyball.dev/kubelet/pod/plan"
)

const mi = 1 << 20

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// pod uses memory and requests some of it, both in mebibytes.
func pod(name string, uses, requests int64, priority int32) Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: v1.PodSpec{
		Priority: &priority, Containers: []v1.Container{{Name: "main", Resources: v1.ResourceRequirements{
			Requests: v1.ResourceList{v1.ResourceMemory: *resource.NewQuantity(requests*mi, resource.BinarySI)},
		}}},
	}}
	return Pod{Pod: p, Usage: &Usage{
		Memory: uses * mi, PIDs: uses,
		Containers: []ContainerUsage{{Name: "main", Memory: uses * mi, Rootfs: Files{uses * mi, uses}, Logs: Files{1, 1}}},
	}}
}

// config has a hard and a soft threshold of memory, and a hard one of nodefs.
func config(t testing.TB) Config {
	t.Helper()
	thresholds, err := ParseThresholds(
		map[string]string{"memory.available": "100Mi", "nodefs.available": "10%", "pid.available": "5%"},
		map[string]string{"memory.available": "200Mi"}, map[string]string{"memory.available": "1m"},
		map[string]string{"memory.available": "50Mi"},
	)
	if err != nil {
		t.Fatal(err)
	}
	return Config{Thresholds: thresholds, TransitionPeriod: 5 * time.Minute, MaxPodGracePeriodSeconds: 20}
}

// observe has the available mebibytes of memory and nodefs, of 1000 each, at a number of seconds.
func observe(seconds int, memory, nodefs int64, pods ...Pod) Observation {
	at := epoch.Add(time.Duration(seconds) * time.Second)
	return Observation{Pods: pods, Signals: map[api.Signal]Amount{
		api.SignalMemoryAvailable: {memory * mi, 1000 * mi, at}, api.SignalNodeFsAvailable: {nodefs * mi, 1000 * mi, at},
	}}
}

// summary of a Decision, without its Memory.
type summary struct {
	Conditions []v1.NodeConditionType
	Starved    v1.ResourceName
	Reclaim    []Reclaim
	Evict      string
	Grace      int64
	Next       int // seconds
}

func brief(d Decision) summary {
	b := summary{Conditions: d.Conditions, Starved: d.Starved, Reclaim: d.Reclaim, Grace: ptr.Deref(d.Termination.GracePeriodSeconds, 0)}
	if d.Evict != nil {
		b.Evict = d.Evict.Name
	}
	if !d.Next.IsZero() {
		b.Next = int(d.Next.Sub(epoch) / time.Second)
	}
	return b
}

// TestPlan decides about a row of observations, of which each remembers the ones before.
func TestPlan(t *testing.T) {
	memory, disk := []v1.NodeConditionType{v1.NodeMemoryPressure}, []v1.NodeConditionType{v1.NodeDiskPressure}
	a, b := pod("a", 300, 100, 0), pod("b", 200, 100, 0)
	ending := func(p Pod) Pod { p.Ending = true; return p }
	steps := func(o ...Observation) []Observation { return o }
	for name, tc := range map[string]struct {
		reason string
		seen   []Observation
		want   []summary
	}{
		"Enough":     {"nothing is short", steps(observe(0, 500, 500, a)), []summary{{}}},
		"Hard":       {"at once, and with one second", steps(observe(0, 99, 500, b, a)), []summary{{Conditions: memory, Starved: "memory", Evict: "a", Grace: 1, Next: 60}}},
		"Soft":       {"after its grace period, with a grace period for the Pod", steps(observe(0, 150, 500, a), observe(60, 150, 500, a)), []summary{{Conditions: memory, Next: 60}, {Conditions: memory, Starved: "memory", Evict: "a", Grace: 20}}},
		"SoftOver":   {"the grace period begins anew when the threshold was not met meanwhile", steps(observe(0, 150, 500, a), observe(30, 300, 500, a), observe(60, 150, 500, a)), []summary{{Conditions: memory, Next: 60}, {Conditions: memory, Next: 300}, {Conditions: memory, Next: 120}}},
		"Transition": {"a condition outlasts its threshold, so that Pods do not come and go", steps(observe(0, 150, 500), observe(299, 300, 500), observe(300, 300, 500)), []summary{{Conditions: memory, Next: 60}, {Conditions: memory, Next: 300}, {}}},
		"MinReclaim": {"not one Pod after the other for a few bytes", steps(observe(0, 99, 500, a, b), observe(1, 149, 500, b), observe(2, 150, 500, b)), []summary{
			{Conditions: memory, Starved: "memory", Evict: "a", Grace: 1, Next: 60},
			{Conditions: memory, Starved: "memory", Evict: "b", Grace: 1, Next: 60},
			{Conditions: memory, Next: 60},
		}},
		"Wait":       {"what an ending Pod uses comes back in a moment", steps(observe(0, 99, 500, a, b), observe(1, 99, 500, ending(a), b), observe(30, 99, 500, ending(a), b)), []summary{{Conditions: memory, Starved: "memory", Evict: "a", Grace: 1, Next: 60}, {Conditions: memory, Next: 30}, {Conditions: memory, Starved: "memory", Evict: "b", Grace: 1, Next: 60}}},
		"SameAmount": {"an old measurement does not show what was freed", steps(observe(0, 99, 500, a, b), observe(0, 99, 500, b)), []summary{{Conditions: memory, Starved: "memory", Evict: "a", Grace: 1, Next: 60}, {Conditions: memory, Next: 60}}},
		"Reclaim": {"containers and images go before Pods", steps(observe(0, 500, 99, a), observe(1, 500, 99, a)), []summary{
			{Conditions: disk, Starved: "ephemeral-storage", Reclaim: []Reclaim{DeadContainers, UnusedImages}},
			{Conditions: disk, Starved: "ephemeral-storage", Evict: "a", Grace: 1},
		}},
		"Reclaimed":   {"no Pod ends if that suffices", steps(observe(0, 500, 99, a), observe(1, 500, 101, a)), []summary{{Conditions: disk, Starved: "ephemeral-storage", Reclaim: []Reclaim{DeadContainers, UnusedImages}}, {Conditions: disk, Next: 300}}},
		"MemoryFirst": {"it runs out fastest", steps(observe(0, 99, 99, a)), []summary{{Conditions: []v1.NodeConditionType{v1.NodeDiskPressure, v1.NodeMemoryPressure}, Starved: "memory", Evict: "a", Grace: 1, Next: 60}}},
		"Critical":    {"the node does without anything but these", steps(observe(0, 99, 500, pod("c", 900, 0, scheduling.SystemCriticalPriority))), []summary{{Conditions: memory, Starved: "memory", Next: 60}}},
		"Unmeasured":  {"what is not measured is not short", steps(Observation{}), []summary{{}}},
	} {
		t.Run(name, func(t *testing.T) {
			var m Memory
			var got []summary
			for _, o := range tc.seen {
				now := epoch
				for _, amount := range o.Signals {
					now = amount.At
				}
				d := Plan(config(t), o, m, now)
				got, m = append(got, brief(d)), d.Memory
			}
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s\ndecisions -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestTermination(t *testing.T) {
	p := pod("web", 300, 100, 0)
	p.Usage.Containers = append(p.Usage.Containers, ContainerUsage{Name: "debugger", Memory: 900 * mi})
	got := Plan(config(t), observe(0, 99, 500, p), Memory{}, epoch).Termination
	message := "The node was low on resource: memory. Threshold quantity: 100Mi, available: 99Mi. " +
		"Container main was using 300Mi, request is 100Mi, has larger consumption of memory. "
	want := plan.Termination{
		Reason: "Evicted", Message: message, Disruption: message, GracePeriodSeconds: ptr.To[int64](1), Annotations: map[string]string{
			"starved_resource": "memory", "offending_containers": "main", "offending_containers_usage": "300Mi",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRank(t *testing.T) {
	unknown := pod("unknown", 0, 0, 9)
	unknown.Usage = nil
	low, high, modest := pod("low", 200, 100, 1), pod("high", 900, 100, 2), pod("modest", 500, 600, 0)
	larger := pod("larger", 300, 100, 1)
	for name, tc := range map[string]struct {
		reason string
		signal api.Signal
		layout Layout
		want   []string
	}{
		"Memory":   {"unknown, above its request by priority and by how much, within its request", api.SignalMemoryAvailable, 0, []string{"unknown", "larger", "low", "high", "modest"}},
		"Disk":     {"nobody requests disk", api.SignalNodeFsAvailable, 0, []string{"unknown", "modest", "larger", "low", "high"}},
		"LogsOnly": {"the writable layers are elsewhere, and the logs of all are as large", api.SignalNodeFsInodesFree, SeparateImages, []string{"unknown", "modest", "larger", "low", "high"}},
		"PIDs":     {"by priority, then by number", api.SignalPIDAvailable, 0, []string{"modest", "larger", "low", "high", "unknown"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, p := range rank([]Pod{modest, high, low, unknown, larger}, tc.signal, tc.layout) {
				got = append(got, p.Name)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s\n-want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

// TestUsed: which files of a Pod lie on which filesystem.
func TestUsed(t *testing.T) {
	p := Pod{Pod: &v1.Pod{}, Usage: &Usage{
		Volumes: Files{1, 10}, Containers: []ContainerUsage{{Rootfs: Files{2, 20}, Logs: Files{4, 40}}},
	}}
	for layout, want := range map[Layout][4]int64{OneFilesystem: {7, 7, 70, 70}, SeparateImages: {5, 2, 50, 20}, SplitImages: {7, 0, 70, 0}} {
		got := [4]int64{
			used(p, api.SignalNodeFsAvailable, layout), used(p, api.SignalImageFsAvailable, layout),
			used(p, api.SignalNodeFsInodesFree, layout), used(p, api.SignalImageFsInodesFree, layout),
		}
		if got != want {
			t.Errorf("layout %d: bytes on nodefs and imagefs, inodes on both: %v, want %v", layout, got, want)
		}
	}
}

func TestParseThresholds(t *testing.T) {
	_, err := ParseThresholds(
		map[string]string{"memory.available": "-1", "nodefs.available": "101%", "nothing": "1", "pid.available": "0%"},
		map[string]string{"imagefs.available": "10%"}, nil, map[string]string{"memory.available": "1"},
	)
	want := `reading memory.available of evictionHard: -1 is not positive
reading nodefs.available of evictionHard: 101% is not between 0% and 100%
reading nothing of evictionHard: there is no such signal
reading imagefs.available of evictionSoft: time: invalid duration ""`
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if list, err := ParseThresholds(map[string]string{"memory.available": "0%", "pid.available": "100%"}, nil, nil, nil); err != nil || len(list) > 0 {
		t.Errorf("thresholds that are switched off are %v, %v", list, err)
	}
}

// TestPlanRelieves lets Pods take memory at random, and the node end what Plan says: it spares
// critical Pods, ends one Pod at a time, and stops as soon as enough is free.
func TestPlanRelieves(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c, pods := config(t), map[string]Pod{}
		for i := range rapid.IntRange(1, 8).Draw(rt, "pods") {
			priority := rapid.SampledFrom([]int32{0, 0, 10, scheduling.SystemCriticalPriority}).Draw(rt, "priority")
			p := pod("p"+strconv.Itoa(i), rapid.Int64Range(1, 300).Draw(rt, "uses"), rapid.Int64Range(0, 300).Draw(rt, "requests"), priority)
			pods[p.Name] = p
		}
		free := func() int64 {
			left := int64(1000)
			for _, p := range pods {
				left -= p.Usage.Memory / mi
			}
			return max(0, left)
		}
		var m Memory
		for second := range 400 {
			o := observe(second, free(), 500, slices.Collect(maps.Values(pods))...)
			d := Plan(c, o, m, epoch.Add(time.Duration(second)*time.Second))
			low := free() < 100
			if low && !slices.Contains(d.Conditions, v1.NodeMemoryPressure) {
				rt.Fatalf("%d MiB are free, and the conditions are %v", free(), d.Conditions)
			}
			if d.Evict != nil {
				switch {
				case free() >= 250:
					rt.Fatalf("%s is ended although %d MiB are free", d.Evict.Name, free())
				case isCritical(d.Evict):
					rt.Fatalf("%s is critical", d.Evict.Name)
				}
				delete(pods, d.Evict.Name)
			}
			m = d.Memory
		}
		for _, p := range pods {
			if !isCritical(p.Pod) && free() < 200 {
				rt.Fatalf("%s runs although %d MiB are free", p.Name, free())
			}
		}
		if free() >= 250 && len(Plan(c, observe(1000, free(), 500), m, epoch.Add(1000*time.Second)).Conditions) > 0 {
			rt.Fatalf("pressure with %d MiB free", free())
		}
	})
}
