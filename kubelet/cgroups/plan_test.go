//go:build linux

package cgroups

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	libcgroups "github.com/opencontainers/cgroups"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"pgregory.net/rapid"
)

func resources(kv ...string) v1.ResourceList {
	list := v1.ResourceList{}
	for i := 0; i < len(kv); i += 2 {
		list[v1.ResourceName(kv[i])] = resource.MustParse(kv[i+1])
	}
	return list
}

func pod(uid string, containers ...v1.ResourceRequirements) *v1.Pod {
	p := &v1.Pod{}
	p.Name, p.UID = uid, types.UID(uid)
	for _, r := range containers {
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: "c", Resources: r})
	}
	return p
}

func TestPodLimits(t *testing.T) {
	limited := v1.ResourceRequirements{
		Requests: resources("cpu", "500m", "memory", "64Mi"), Limits: resources("cpu", "1", "memory", "128Mi"),
	}
	guaranteed := v1.ResourceRequirements{
		Requests: resources("cpu", "2", "memory", "1Gi"), Limits: resources("cpu", "2", "memory", "1Gi"),
	}
	requestOnly := v1.ResourceRequirements{Requests: resources("cpu", "100m")}
	cases := map[string]struct {
		reason string
		pod    *v1.Pod
		want   Limits
	}{
		"BestEffort": {
			reason: "a Pod that asks for nothing gets the least share and no limit",
			pod:    pod("a", v1.ResourceRequirements{}),
			want:   Limits{Shares: 2},
		},
		"Guaranteed": {
			reason: "requests and limits add up over containers",
			pod:    pod("a", guaranteed, guaranteed),
			want:   Limits{Shares: 4096, Quota: 400000, Memory: 2 << 30},
		},
		"BurstableAllLimited": {
			reason: "a Pod is limited if each of its containers is",
			pod:    pod("a", limited, limited),
			want:   Limits{Shares: 1024, Quota: 200000, Memory: 256 << 20},
		},
		"BurstableOneUnlimited": {
			reason: "one container without a limit may use what it likes, so the Pod must have none",
			pod:    pod("a", limited, requestOnly),
			want:   Limits{Shares: 614},
		},
		"PodLevel": {
			reason: "limits of the Pod itself count even if containers have none (KEP-2837)",
			pod: func() *v1.Pod {
				p := pod("a", v1.ResourceRequirements{})
				p.Spec.Resources = &v1.ResourceRequirements{Requests: resources("cpu", "1"), Limits: resources("cpu", "2", "memory", "1Gi")}
				return p
			}(),
			want: Limits{Shares: 1024, Quota: 200000, Memory: 1 << 30},
		},
		"TinyLimit": {
			reason: "the kernel refuses quotas below a millisecond",
			pod:    pod("a", v1.ResourceRequirements{Limits: resources("cpu", "1m", "memory", "8Mi"), Requests: resources("cpu", "1m")}),
			want:   Limits{Shares: 2, Quota: 1000, Memory: 8 << 20},
		},
		"Hugepages": {
			reason: "huge pages are limited to what was requested, in the kernel's notation of sizes",
			pod:    pod("a", v1.ResourceRequirements{Requests: resources("cpu", "1", "hugepages-2Mi", "4Mi")}),
			want:   Limits{Shares: 1024, Hugepages: map[string]uint64{"2MB": 4 << 20}},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, podLimits(tc.pod), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s\npodLimits() -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestResources(t *testing.T) {
	all := sets.New("cpu", "memory", "hugetlb")
	limits := Limits{Shares: 1024, Quota: 50000, Memory: 1 << 20}
	cases := map[string]struct {
		reason string
		v2     bool
		has    sets.Set[string]
		want   *libcgroups.Resources
	}{
		"V1": {
			reason: "v1 takes shares as they are",
			has:    all,
			want:   &libcgroups.Resources{SkipDevices: true, SkipFreezeOnSet: true, CpuShares: 1024, CpuQuota: 50000, CpuPeriod: 100000, Memory: 1 << 20},
		},
		"V2": {
			reason: "1024 shares, the default of v1, are weight 100, the default of v2",
			v2:     true,
			has:    all,
			want:   &libcgroups.Resources{SkipDevices: true, SkipFreezeOnSet: true, CpuWeight: 100, CpuQuota: 50000, CpuPeriod: 100000, Memory: 1 << 20},
		},
		"NoMemoryController": {
			reason: "a host without a controller runs Pods without that limit",
			has:    sets.New("cpu"),
			want:   &libcgroups.Resources{SkipDevices: true, SkipFreezeOnSet: true, CpuShares: 1024, CpuQuota: 50000, CpuPeriod: 100000},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, limits.resources(tc.v2, tc.has)); diff != "" {
				t.Errorf("%s\nresources() -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestPaths(t *testing.T) {
	want := map[v1.PodQOSClass]string{
		v1.PodQOSGuaranteed: "/kubepods/podx",
		v1.PodQOSBurstable:  "/kubepods/burstable/podx",
		v1.PodQOSBestEffort: "/kubepods/besteffort/podx",
	}
	got := map[v1.PodQOSClass]string{}
	for _, class := range classes {
		got[class] = podPath("kubepods", class, "x")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("podPath() -want +got:\n%s", diff)
	}
}

func TestSumShares(t *testing.T) {
	for _, tc := range []struct {
		reason string
		pods   []uint64
		want   uint64
	}{
		{"a class without Pods has the least there is", nil, 2},
		{"a class weighs as much as its Pods", []uint64{512, 1024}, 1536},
		{"but not more than the kernel takes", []uint64{maxShares, 1024}, maxShares},
	} {
		if diff := cmp.Diff(tc.want, sumShares(tc.pods)); diff != "" {
			t.Errorf("%s\nsumShares() -want +got:\n%s", tc.reason, diff)
		}
	}
}

func TestSharesOfWeight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shares := rapid.Uint64Range(minShares, maxShares).Draw(t, "shares")
		weight := libcgroups.ConvertCPUSharesToCgroupV2Value(shares)
		back := sharesOf(weight)
		if back > shares || libcgroups.ConvertCPUSharesToCgroupV2Value(back) != weight {
			t.Fatalf("%d shares have weight %d, which is said to come from %d", shares, weight, back)
		}
	})
}

func TestAbove(t *testing.T) {
	wanted := Limits{Shares: 512, Quota: 50000, Memory: 100}
	cases := map[string]struct {
		reason                string
		shares, quota, memory int64
		want                  Limits
	}{
		"Growing":   {"all that is less is raised", 256, 25000, 50, wanted},
		"Shrinking": {"nothing is lowered", 1024, 100000, 200, Limits{}},
		"Mixed":     {"each for itself", 256, 100000, 50, Limits{Shares: 512, Memory: 100}},
		"Unlimited": {"no limit is more than any", 2, unlimited, unlimited, Limits{Shares: 512}},
		"Missing":   {"a cgroup that is missing is made", 0, 0, 0, wanted},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, wanted.above(tc.shares, tc.quota, tc.memory)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}
