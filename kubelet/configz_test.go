//go:build linux

package kubelet

import (
	"slices"
	"testing"

	kubeletconfig "k8s.io/kubelet/config/v1beta1"
)

// TestConfigurationClaimsNoEviction: nothing enforces a threshold.
func TestConfigurationClaimsNoEviction(t *testing.T) {
	c := configuration(Config{AllowedUnsafeSysctls: []string{"net.core.*"}, ImagePullCredentialsVerificationPolicy: "AlwaysVerify"})
	if len(c.EvictionHard)+len(c.EvictionSoft)+len(c.EnforceNodeAllocatable) > 0 {
		t.Errorf("it claims the thresholds %v, %v and to enforce %v", c.EvictionHard, c.EvictionSoft, c.EnforceNodeAllocatable)
	}
	if !slices.Equal(c.AllowedUnsafeSysctls, []string{"net.core.*"}) {
		t.Errorf("it says that the sysctls %v are allowed", c.AllowedUnsafeSysctls)
	}
	if c.ImagePullCredentialsVerificationPolicy != kubeletconfig.AlwaysVerify {
		t.Errorf("it says that the policy for images is %q", c.ImagePullCredentialsVerificationPolicy)
	}
}
