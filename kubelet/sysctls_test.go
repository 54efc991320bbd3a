//go:build linux

package kubelet

import (
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestSysctls(t *testing.T) {
	host := func(p *v1.Pod) { p.Spec.HostNetwork, p.Spec.HostIPC = true, true }
	cases := map[string]struct {
		reason  string
		sysctl  string
		unsafe  []string
		change  func(*v1.Pod)
		message string
	}{
		"none":           {reason: "the Pod sets none"},
		"safe":           {reason: "of the Pod's own IPC namespace, and of no effect on others", sysctl: "kernel.shm_rmid_forced"},
		"slashes":        {reason: "the other way to write it", sysctl: "kernel/shm_rmid_forced"},
		"of this kernel": {reason: "namespaced since Linux 4.5", sysctl: "net.ipv4.tcp_keepalive_time"},
		"unsafe":         {reason: "its memory is not accounted to the Pod", sysctl: "kernel.msgmax", message: `forbidden sysctl: "kernel.msgmax" not allowlisted`},
		"allowed":        {reason: "by name", sysctl: "kernel.msgmax", unsafe: []string{"kernel.msgmax"}},
		"pattern":        {reason: "by what it begins with", sysctl: "net.core.somaxconn", unsafe: []string{"net.core.*"}},
		"of the host":    {reason: "not even a safe one may change the host's IPC", sysctl: "kernel.shm_rmid_forced", change: host, message: `forbidden sysctl: "kernel.shm_rmid_forced" not allowed with host IPC enabled`},
		"host network":   {reason: "nor its network, allowed or not", sysctl: "net.core.somaxconn", unsafe: []string{"net.*"}, change: host, message: `forbidden sysctl: "net.core.somaxconn" not allowed with host Net enabled`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := &v1.Pod{}
			if tc.sysctl != "" {
				pod.Spec.SecurityContext = &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: tc.sysctl, Value: "1"}}}
			}
			if tc.change != nil {
				tc.change(pod)
			}
			allowed, err := newSysctls(t.Context(), tc.unsafe)
			if err != nil {
				t.Fatal(err)
			}
			reason, message := allowed.forbid(pod)
			if message != tc.message || (reason == "SysctlForbidden") != (tc.message != "") {
				t.Errorf("%s: got %q, %q, want %q", tc.reason, reason, message, tc.message)
			}
		})
	}
	if _, err := newSysctls(t.Context(), []string{"vm.swappiness"}); err == nil {
		t.Error("a sysctl of the whole host can be allowed")
	}
}
