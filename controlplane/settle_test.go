//go:build linux

package controlplane

import "testing"

// TestSettle checks that the process lives on without its pages: everything after the call needs
// them.
func TestSettle(t *testing.T) {
	for range 2 {
		if err := Settle(); err != nil {
			t.Fatal(err)
		}
	}
	TestValidate(t)
}
