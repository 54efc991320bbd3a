//go:build linux

package cgroups

import (
	"testing"

	v1 "k8s.io/api/core/v1"
)

// BenchmarkPod makes and removes the cgroup of a Pod, beside the work of the runtime.
func BenchmarkPod(b *testing.B) {
	m := hostManager(b)
	p := pod("x", v1.ResourceRequirements{Requests: resources("cpu", "100m"), Limits: resources("memory", "64Mi")})
	b.Run("Ensure", func(b *testing.B) {
		for b.Loop() {
			if _, err := m.EnsurePod(p); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := m.RemovePod(p.UID); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	b.Run("Remove", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			if _, err := m.EnsurePod(p); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if err := m.RemovePod(p.UID); err != nil {
				b.Fatal(err)
			}
		}
	})
}
