//go:build linux

package kubelet

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"

	"flyball.dev/kubelet/logs"
)

// configuration is what /configz shows: the part of upstream's kubelet
// configuration that this agent has an answer to. Tools read it from there; it
// configures nothing. There are no eviction thresholds in it, since no Pod is evicted.
func configuration(cfg Config) *kubeletconfig.KubeletConfiguration {
	c := &kubeletconfig.KubeletConfiguration{
		TypeMeta:                    metav1.TypeMeta{APIVersion: "kubelet.config.k8s.io/v1beta1", Kind: "KubeletConfiguration"},
		Address:                     cfg.BindAddress.String(),
		Port:                        int32(cfg.Port),
		PodLogsDir:                  cfg.PodLogsDir,
		ClusterDomain:               cfg.ClusterDomain,
		MaxPods:                     int32(cfg.MaxPods),
		CgroupDriver:                "cgroupfs",
		CgroupRoot:                  "/",
		CgroupsPerQOS:               new(true),
		ContainerRuntimeEndpoint:    cfg.CRIEndpoint,
		NodeStatusReportFrequency:   metav1.Duration{Duration: 5 * time.Minute},
		NodeStatusUpdateFrequency:   metav1.Duration{Duration: 10 * time.Second},
		NodeLeaseDurationSeconds:    40,
		AllowedUnsafeSysctls:        cfg.AllowedUnsafeSysctls,
		ContainerLogMaxSize:         "10Mi",
		ContainerLogMaxFiles:        new(int32(logs.DefaultPolicy.MaxFiles)),
		ImageGCHighThresholdPercent: new(int32(85)),
		ImageGCLowThresholdPercent:  new(int32(80)),
		EnableSystemLogHandler:      new(true),

		ImagePullCredentialsVerificationPolicy: kubeletconfig.ImagePullCredentialsVerificationPolicy(cfg.ImagePullCredentialsVerificationPolicy),
		PreloadedImagesVerificationAllowlist:   cfg.PreloadedImagesVerificationAllowlist,
	}
	for _, dns := range cfg.ClusterDNS {
		c.ClusterDNS = append(c.ClusterDNS, dns.String())
	}
	return c
}
