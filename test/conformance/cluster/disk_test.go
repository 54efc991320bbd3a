package cluster

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestEnough(t *testing.T) {
	const gib = 1 << 30
	for name, tc := range map[string]struct {
		reason string
		free   uint64
		want   string // in the error
	}{
		"Much":     {reason: "most of the disk is free", free: 80 * gib},
		"Just":     {reason: "what is needed is enough", free: 10 * gib},
		"Pressure": {reason: "a node takes no Pods", free: 5 * gib, want: "/var/lib has 5.0 GiB free of 100.0, and its nodes need 10.0 (10 %), or they refuse Pods for DiskPressure"},
	} {
		t.Run(name, func(t *testing.T) {
			err := enough("/var/lib", tc.free, 100*gib)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: got %v, want %q", tc.reason, err, tc.want)
			}
		})
	}
}

// The nodes' directories do not exist yet when their file system is measured.
func TestMeasure(t *testing.T) {
	err := measure(filepath.Join(t.TempDir(), "not", "there"))
	if err != nil && !strings.Contains(err.Error(), "DiskPressure") {
		t.Error(err)
	}
}
