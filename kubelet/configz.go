//go:build linux

package kubelet

import (
	"cmp"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"

	"flyball.dev/kubelet/images/gc"
	"flyball.dev/kubelet/logs"
	"flyball.dev/kubelet/node"
)

// configuration is what /configz shows to tools: the fields of upstream's kubelet configuration
// that this agent has. It configures nothing, so each value is read from where it is used. It has
// no eviction thresholds, since no Pod is evicted. reserved is what Pods may not request.
func configuration(cfg Config, reserved v1.ResourceList) *kubeletconfig.KubeletConfiguration {
	verify := kubeletconfig.ImagePullCredentialsVerificationPolicy(cfg.ImagePullCredentialsVerificationPolicy)
	c := &kubeletconfig.KubeletConfiguration{
		TypeMeta:                         metav1.TypeMeta{APIVersion: "kubelet.config.k8s.io/v1beta1", Kind: "KubeletConfiguration"},
		Address:                          cfg.BindAddress.String(),
		Port:                             int32(cfg.Port),
		PodLogsDir:                       cfg.PodLogsDir,
		ClusterDomain:                    cfg.ClusterDomain,
		MaxPods:                          int32(cfg.MaxPods),
		CgroupDriver:                     "cgroupfs",
		CgroupRoot:                       "/",
		CgroupsPerQOS:                    new(true),
		ContainerRuntimeEndpoint:         cfg.CRIEndpoint,
		NodeStatusReportFrequency:        metav1.Duration{Duration: node.StatusReportFrequency},
		NodeStatusUpdateFrequency:        metav1.Duration{Duration: node.StatusUpdateFrequency},
		NodeLeaseDurationSeconds:         int32(node.DefaultLeaseDuration.Seconds()),
		NodeStatusMaxImages:              new(int32(node.MaxImages)),
		EnforceNodeAllocatable:           []string{"pods"}, // the limits of the cgroup of all Pods
		KubeReserved:                     map[string]string{},
		EvictionPressureTransitionPeriod: metav1.Duration{Duration: node.PressureTransitionPeriod},
		EnableControllerAttachDetach:     new(true),
		FailSwapOn:                       new(false),
		AllowedUnsafeSysctls:             cfg.AllowedUnsafeSysctls,
		ContainerLogMaxSize:              resource.NewQuantity(logs.DefaultPolicy.MaxSize, resource.BinarySI).String(),
		ContainerLogMaxFiles:             new(int32(logs.DefaultPolicy.MaxFiles)),
		ImageGCHighThresholdPercent:      new(int32(gc.DefaultPolicy.HighPercent)),
		ImageGCLowThresholdPercent:       new(int32(gc.DefaultPolicy.LowPercent)),
		ImageMinimumGCAge:                metav1.Duration{Duration: gc.DefaultPolicy.MinAge},
		EnableSystemLogHandler:           new(true),

		ImagePullCredentialsVerificationPolicy: cmp.Or(verify, kubeletconfig.NeverVerifyPreloadedImages),
		PreloadedImagesVerificationAllowlist:   cfg.PreloadedImagesVerificationAllowlist,
	}
	for name, amount := range reserved {
		c.KubeReserved[string(name)] = amount.String()
	}
	for _, dns := range cfg.ClusterDNS {
		c.ClusterDNS = append(c.ClusterDNS, dns.String())
	}
	return c
}
