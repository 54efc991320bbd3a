//go:build linux

package kubelet

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"

	"flyball.dev/kubelet/images/gc"
	"flyball.dev/kubelet/logs"
	"flyball.dev/kubelet/node"
)

// TestConfiguration compares /configz with what the agent does, field by field.
func TestConfiguration(t *testing.T) {
	capacity := v1.ResourceList{
		v1.ResourceCPU: resource.MustParse("2"), v1.ResourceMemory: resource.MustParse("8Gi"),
		v1.ResourceEphemeralStorage: resource.MustParse("100Gi"), v1.ResourcePods: resource.MustParse("110"),
	}
	cfg := Config{
		MaxPods: 110, Port: 10250, BindAddress: netip.MustParseAddr("192.0.2.2"), ClusterDomain: "cluster.local",
		ClusterDNS: []netip.Addr{netip.MustParseAddr("10.43.0.10"), netip.MustParseAddr("fd00::10")}, PodLogsDir: "/var/log/pods",
		CRIEndpoint: "unix:///run/flyball/containerd.sock", AllowedUnsafeSysctls: []string{"net.core.*"},
		ImagePullCredentialsVerificationPolicy: "AlwaysVerify",
	}
	c, offered := configuration(cfg, node.Reserved(capacity)), node.Allocatable(capacity)
	for name, tc := range map[string]struct {
		reason    string
		got, want any
	}{
		"address":                                {"the server listens there", c.Address, "192.0.2.2"},
		"port":                                   {"the server listens there", int(c.Port), cfg.Port},
		"podLogsDir":                             {"the runtime writes logs there", c.PodLogsDir, cfg.PodLogsDir},
		"containerRuntimeEndpoint":               {"it is dialed", c.ContainerRuntimeEndpoint, cfg.CRIEndpoint},
		"clusterDomain":                          {"it is in Pods' resolv.conf", c.ClusterDomain, cfg.ClusterDomain},
		"clusterDNS":                             {"it is in Pods' resolv.conf", c.ClusterDNS, []string{"10.43.0.10", "fd00::10"}},
		"maxPods":                                {"the Node says so", int64(c.MaxPods), offered.Pods().Value()},
		"cgroupRoot":                             {"/kubepods is in it, see cgroups.Root", c.CgroupRoot, "/"},
		"cgroupsPerQOS":                          {"the classes have cgroups", *c.CgroupsPerQOS, true},
		"cgroupDriver":                           {"cgroups.Manager writes the files itself", c.CgroupDriver, "cgroupfs"},
		"allowedUnsafeSysctls":                   {"admission reads it", c.AllowedUnsafeSysctls, cfg.AllowedUnsafeSysctls},
		"nodeLeaseDurationSeconds":               {"the Lease says so", time.Duration(c.NodeLeaseDurationSeconds) * time.Second, node.DefaultLeaseDuration},
		"nodeStatusReportFrequency":              {"a status without news", c.NodeStatusReportFrequency.Duration, node.StatusReportFrequency},
		"nodeStatusUpdateFrequency":              {"pressure is measured", c.NodeStatusUpdateFrequency.Duration, node.StatusUpdateFrequency},
		"nodeStatusMaxImages":                    {"the status names as many", int(*c.NodeStatusMaxImages), node.MaxImages},
		"evictionPressureTransitionPeriod":       {"a pressure condition stays", c.EvictionPressureTransitionPeriod.Duration, node.PressureTransitionPeriod},
		"evictionHard":                           {"no Pod is evicted", len(c.EvictionHard), 0},
		"evictionSoft":                           {"no Pod is evicted", len(c.EvictionSoft), 0},
		"enforceNodeAllocatable":                 {"cgroups.EnsureNode limits /kubepods to it", c.EnforceNodeAllocatable, []string{"pods"}},
		"systemReserved":                         {"there is one reservation", len(c.SystemReserved), 0},
		"containerLogMaxSize":                    {"logs are rotated by it", bytes(t, c.ContainerLogMaxSize), logs.DefaultPolicy.MaxSize},
		"containerLogMaxFiles":                   {"logs are rotated by it", int(*c.ContainerLogMaxFiles), logs.DefaultPolicy.MaxFiles},
		"imageGCHighThresholdPercent":            {"images are removed above", int64(*c.ImageGCHighThresholdPercent), gc.DefaultPolicy.HighPercent},
		"imageGCLowThresholdPercent":             {"images are removed down to", int64(*c.ImageGCLowThresholdPercent), gc.DefaultPolicy.LowPercent},
		"imageMinimumGCAge":                      {"younger images stay", c.ImageMinimumGCAge.Duration, gc.DefaultPolicy.MinAge},
		"imagePullCredentialsVerificationPolicy": {"present images are checked by it", c.ImagePullCredentialsVerificationPolicy, kubeletconfig.AlwaysVerify},
		"imageMaximumGCAge":                      {"no image is removed for its age", c.ImageMaximumGCAge.Duration, time.Duration(0)},
	} {
		if d := cmp.Diff(tc.want, tc.got); d != "" {
			t.Errorf("%s: %s (-agent +configz):\n%s", name, tc.reason, d)
		}
	}
	checkAllocatable(t, capacity, c)
	cfg.ImagePullCredentialsVerificationPolicy = ""
	if got := configuration(cfg, nil).ImagePullCredentialsVerificationPolicy; got != kubeletconfig.NeverVerifyPreloadedImages {
		t.Errorf("without a policy /configz says %q, and images.Access does as NeverVerifyPreloadedImages says", got)
	}
}

// checkAllocatable adds up capacity, what /configz says is reserved, and what the Node offers.
func checkAllocatable(t *testing.T, capacity v1.ResourceList, c *kubeletconfig.KubeletConfiguration) {
	t.Helper()
	offered := node.Allocatable(capacity)
	for name, has := range capacity {
		if kept, ok := c.KubeReserved[string(name)]; ok {
			has.Sub(resource.MustParse(kept))
		}
		if got := offered[name]; got.Cmp(has) != 0 {
			t.Errorf("the Node offers %s of %s; by /configz it is %s", &got, name, &has)
		}
	}
	if len(offered) != len(capacity) {
		t.Errorf("the Node offers %v of %v", offered, capacity)
	}
}

func bytes(t *testing.T, quantity string) int64 {
	t.Helper()
	q, err := resource.ParseQuantity(quantity)
	if err != nil {
		t.Fatal(err)
	}
	return q.Value()
}
