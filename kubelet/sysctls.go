//go:build linux

package kubelet

import (
	"context"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"
	"k8s.io/kubernetes/pkg/kubelet/sysctl"
)

// sysctls decides which sysctls a Pod may set: those that are safe with this host's kernel, and the
// unsafe ones that are allowed.
type sysctls struct{ allowlist lifecycle.PodAdmitHandler }

func newSysctls(ctx context.Context, unsafe []string) (sysctls, error) {
	allowlist, err := sysctl.NewAllowlist(slices.Concat(sysctl.SafeSysctlAllowlist(ctx), unsafe))
	if err != nil {
		return sysctls{}, fmt.Errorf("reading the unsafe sysctls that Pods may set: %w", err)
	}
	return sysctls{allowlist}, nil
}

// forbid returns the reason and the message of a refusal, empty if there is none.
func (s sysctls) forbid(pod *v1.Pod) (reason, message string) {
	r := s.allowlist.Admit(context.Background(), &lifecycle.PodAdmitAttributes{Pod: pod})
	return r.Reason, r.Message
}
