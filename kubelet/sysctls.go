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

// newSysctls returns what pod.Config calls Sysctls: a Pod may set the sysctls that are safe
// with this machine's kernel, and the unsafe ones that are allowed besides.
func newSysctls(ctx context.Context, unsafe []string) (func(*v1.Pod) (reason, message string), error) {
	allowed, err := sysctl.NewAllowlist(slices.Concat(sysctl.SafeSysctlAllowlist(ctx), unsafe))
	if err != nil {
		return nil, fmt.Errorf("reading which unsafe sysctls Pods may set: %w", err)
	}
	return func(pod *v1.Pod) (string, string) {
		r := allowed.Admit(context.Background(), &lifecycle.PodAdmitAttributes{Pod: pod})
		return r.Reason, r.Message
	}, nil
}
