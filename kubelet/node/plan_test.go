package node

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"pgregory.net/rapid"
)

var (
	t0   = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	self = identity{
		name: "n1", port: 10250, labels: map[string]string{"disk": "fast"},
		host: HostInfo{
			Addresses: addresses("n1", []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}),
			Capacity: v1.ResourceList{
				"cpu": resource.MustParse("2"), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("110"),
				"ephemeral-storage": resource.MustParse("100Gi"), "hugepages-2Mi": resource.MustParse("1Gi"),
			},
			System: v1.NodeSystemInfo{
				BootID: "boot-1", MachineID: "m", SystemUUID: "u", KernelVersion: "6.1", OSImage: "Debian",
				OperatingSystem: "linux", Architecture: "amd64", KubeletVersion: "v1.37.2+flyball",
			},
		},
	}
)

func healthy(now time.Time) state {
	return state{
		runtime: runtimeState{answered: now, version: "containerd://2.4.2", status: kubecontainer.RuntimeStatus{
			Conditions: []kubecontainer.RuntimeCondition{{Type: "RuntimeReady", Status: true}, {Type: "NetworkReady", Status: true}},
		}},
		usage: usage{memoryAvailable: 4 << 30, disk: 100, diskAvailable: 50, inodes: 100, inodesAvailable: 50},
	}
}

// registered is the Node that an earlier plan has written.
func registered() *v1.Node { return plan(self, healthy(t0), 0, t0).write }

func TestPlan(t *testing.T) {
	type result struct {
		Reason, Ready, ReadyMessage string
		Again                       time.Duration
		Events                      []string
	}
	notReady := func(o *state) {
		o.runtime.status.Conditions[1] = kubecontainer.RuntimeCondition{
			Type: "NetworkReady", Reason: "NetworkPluginNotReady", Message: "cni plugin not initialized",
		}
	}
	const noNetwork = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:cni plugin not initialized"
	tests := map[string]struct {
		reason string
		change func(o *state)
		after  time.Duration
		pause  time.Duration
		want   result
	}{
		"new": {
			reason: "The first write says Ready already, if the runtime is.",
			change: func(o *state) { o.existing = nil },
			want: result{
				Reason: "there is no Node yet", Ready: "True", ReadyMessage: messageReady, Again: StatusUpdateFrequency,
				Events: []string{"NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"},
			},
		},
		"unchanged": {
			reason: "Nothing is written but every five minutes.",
			after:  StatusReportFrequency - time.Second, want: result{Again: StatusUpdateFrequency},
		},
		"heartbeat": {
			reason: "Even an unchanged status is written now and then.",
			after:  StatusReportFrequency, want: result{Reason: "the last report is five minutes old", Ready: "True", ReadyMessage: messageReady, Again: StatusUpdateFrequency},
		},
		"no network yet": {
			reason: "The runtime's own words, and the next reconcile is soon: CRI has no event for it.",
			change: notReady, pause: 40 * time.Millisecond,
			want: result{
				Reason: "the status or a label of the Node changed", Ready: "False", ReadyMessage: noNetwork,
				Again: 80 * time.Millisecond, Events: []string{"NodeNotReady"},
			},
		},
		"no network for long": {
			reason: "The back-off ends at a second.",
			change: notReady, pause: time.Second,
			want: result{
				Reason: "the status or a label of the Node changed", Ready: "False", ReadyMessage: noNetwork,
				Again: retryLatest, Events: []string{"NodeNotReady"},
			},
		},
		"runtime restarts": {
			reason: "Some seconds of silence do not take the Pods out of their Services.",
			change: func(o *state) { o.runtime.answered, o.runtime.silent = t0, true },
			after:  20 * time.Second, want: result{Again: retrySoonest},
		},
		"runtime gone": {
			reason: "Half a minute of silence does.",
			change: func(o *state) { o.runtime.answered, o.runtime.silent = t0, true },
			after:  31 * time.Second,
			want: result{
				Reason: "the status or a label of the Node changed", Ready: "False", ReadyMessage: runtimeDown,
				Again: retrySoonest, Events: []string{"NodeNotReady"},
			},
		},
		"runtime never seen": {
			reason: "After a restart of the agent nothing is known of the runtime yet.",
			change: func(o *state) { o.runtime = runtimeState{silent: true} },
			want: result{
				Reason: "the status or a label of the Node changed", Ready: "False", ReadyMessage: runtimeNotAsked,
				Again: retrySoonest, Events: []string{"NodeNotReady"},
			},
		},
		"marked Unknown by others": {
			reason: "The node lifecycle controller missed the Lease for a while; we are here.",
			change: func(o *state) {
				o.existing.Status.Conditions[3].Status = v1.ConditionUnknown
			},
			want: result{
				Reason: "the status or a label of the Node changed", Ready: "True", ReadyMessage: messageReady, Again: StatusUpdateFrequency,
				Events: []string{"NodeReady"},
			},
		},
		"memory pressure": {
			reason: "Less than 100Mi is left.",
			change: func(o *state) { o.usage.memoryAvailable = 99 << 20 },
			want: result{
				Reason: "the status or a label of the Node changed", Ready: "True", ReadyMessage: messageReady, Again: StatusUpdateFrequency,
				Events: []string{"NodeHasInsufficientMemory"},
			},
		},
		"disk pressure outlives its cause": {
			reason: "A node at the threshold does not flap.",
			change: func(o *state) {
				o.pressureAt = map[v1.NodeConditionType]time.Time{v1.NodeDiskPressure: t0}
			},
			after: PressureTransitionPeriod - time.Minute,
			want: result{
				Reason: "the status or a label of the Node changed", Ready: "True", ReadyMessage: messageReady, Again: StatusUpdateFrequency,
				Events: []string{"NodeHasDiskPressure"},
			},
		},
		"rebooted": {
			reason: "Another boot ID than the Node has.",
			change: func(o *state) { o.existing.Status.NodeInfo.BootID = "boot-0" },
			want: result{
				Reason: "the status or a label of the Node changed", Ready: "True", ReadyMessage: messageReady, Again: StatusUpdateFrequency,
				Events: []string{"NodeRebooted"},
			},
		},
		"label removed": {
			reason: "Ours are set again.",
			change: func(o *state) { delete(o.existing.Labels, v1.LabelHostname) },
			want:   result{Reason: "the status or a label of the Node changed", Ready: "True", ReadyMessage: messageReady, Again: StatusUpdateFrequency},
		},
		"what others own": {
			reason: "Foreign labels, taints, conditions and resources are no change.",
			change: func(o *state) {
				o.existing.Labels["theirs"] = "x"
				o.existing.Spec.Taints = []v1.Taint{{Key: "theirs", Effect: v1.TaintEffectNoSchedule}}
				o.existing.Status.Capacity["example.com/gpu"] = resource.MustParse("2")
				o.existing.Status.Allocatable["example.com/gpu"] = resource.MustParse("1")
				o.existing.Status.Conditions = append(o.existing.Status.Conditions, v1.NodeCondition{Type: "KernelDeadlock"})
				o.existing.Status.VolumesAttached = []v1.AttachedVolume{{Name: "v"}}
			},
			want: result{Again: StatusUpdateFrequency},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			now := t0.Add(tc.after)
			o := healthy(now)
			o.existing = registered()
			if tc.change != nil {
				tc.change(&o)
			}
			out := plan(self, o, tc.pause, now)
			got := result{Reason: out.reason, Again: out.requeueAfter}
			if out.write != nil {
				c := condition(out.write, v1.NodeReady)
				got.Ready, got.ReadyMessage = string(c.Status), c.Message
			}
			for _, e := range out.events {
				got.Events = append(got.Events, e.reason)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}

func TestRegisteredNode(t *testing.T) {
	n := registered()
	q := resource.MustParse
	want := v1.ResourceList{
		"cpu": q("2"), "memory": q("8Gi"), "ephemeral-storage": q("100Gi"), "pods": q("110"), "hugepages-2Mi": q("1Gi"),
	}
	if d := cmp.Diff(want, n.Status.Capacity); d != "" {
		t.Errorf("capacity (-want +got):\n%s", d)
	}
	want["memory"], want["ephemeral-storage"] = q("7068Mi"), q("90Gi")
	if d := cmp.Diff(want, n.Status.Allocatable); d != "" {
		t.Errorf("allocatable: less 100Mi, the huge pages and a tenth of the disk (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[string]string{
		"kubernetes.io/hostname": "n1", "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
		"beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "amd64", "disk": "fast",
	}, n.Labels); d != "" {
		t.Errorf("labels (-want +got):\n%s", d)
	}
	if d := cmp.Diff(v1.NodeSystemInfo{
		MachineID: "m", SystemUUID: "u", BootID: "boot-1", KernelVersion: "6.1", OSImage: "Debian", OperatingSystem: "linux",
		Architecture: "amd64", KubeletVersion: "v1.37.2+flyball", ContainerRuntimeVersion: "containerd://2.4.2",
	}, n.Status.NodeInfo); d != "" {
		t.Errorf("nodeInfo (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]v1.NodeAddress{
		{Type: v1.NodeInternalIP, Address: "192.0.2.1"}, {Type: v1.NodeInternalIP, Address: "2001:db8::1"}, {Type: v1.NodeHostName, Address: "n1"},
	}, n.Status.Addresses); d != "" {
		t.Errorf("addresses, in the order of the configuration (-want +got):\n%s", d)
	}
	if p := n.Status.DaemonEndpoints.KubeletEndpoint.Port; p != 10250 {
		t.Errorf("the API server would ask for logs on port %d", p)
	}
	if got := n.Status.Conditions[len(n.Status.Conditions)-1].Type; got != v1.NodeReady {
		t.Errorf("Ready is the last condition upstream; here it is %s", got)
	}
}

// From any state: one write is enough, and it removes nothing of others.
func TestPlanConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := healthy(t0)
		o.existing = registered()
		o.existing.Labels["theirs"] = "x"
		o.existing.Spec.Unschedulable = true
		for i := range o.runtime.status.Conditions {
			o.runtime.status.Conditions[i].Status = rapid.Bool().Draw(t, "condition")
		}
		o.usage.memoryAvailable = rapid.Uint64Range(0, 1<<31).Draw(t, "memory")
		o.usage.diskAvailable = rapid.Uint64Range(0, 100).Draw(t, "disk")
		if rapid.Bool().Draw(t, "wiped") {
			o.existing.Status = v1.NodeStatus{}
		}
		now := t0.Add(time.Duration(rapid.IntRange(0, 600).Draw(t, "seconds")) * time.Second)
		o.runtime.answered = now
		first := plan(self, o, 0, now)
		if first.write == nil {
			return
		}
		if first.write.Labels["theirs"] != "x" || !first.write.Spec.Unschedulable {
			t.Fatal("what others wrote is gone")
		}
		o.existing = first.write
		if again := plan(self, o, 0, now); again.write != nil {
			t.Fatalf("a second write: %s\n%s", again.reason, cmp.Diff(withoutHeartbeats(first.write), withoutHeartbeats(again.write)))
		}
		for _, c := range first.write.Status.Conditions {
			if c.LastTransitionTime.After(c.LastHeartbeatTime.Time) || c.LastHeartbeatTime != metav1.NewTime(now) {
				t.Fatalf("condition %s: last heartbeat %s, last transition %s", c.Type, c.LastHeartbeatTime, c.LastTransitionTime)
			}
		}
	})
}
