//go:build linux

package volumes

import (
	"testing"

	v1 "k8s.io/api/core/v1"
)

// BenchmarkTypicalPod mounts and unmounts what nearly every Pod has and nothing
// else: its token, the CA and its namespace. An API server that takes no time
// answers, so that this is the cost on the host.
func BenchmarkTypicalPod(b *testing.B) {
	f := newFixture(b, configMapOf("1", map[string]string{"ca.crt": "x"}))
	p := pod(vol(v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
		{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: new(int64(3607))}},
		{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: v1.LocalObjectReference{Name: "cm"}}},
		{DownwardAPI: &v1.DownwardAPIProjection{Items: []v1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}},
	}}}))
	b.Run("Mount", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			if err := f.Unmount(b.Context(), p.UID); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if _, err := f.Mount(b.Context(), p); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("MountAgain", func(b *testing.B) {
		for b.Loop() {
			if _, err := f.Mount(b.Context(), p); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Unmount", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			if _, err := f.Mount(b.Context(), p); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if err := f.Unmount(b.Context(), p.UID); err != nil {
				b.Fatal(err)
			}
		}
	})
}
