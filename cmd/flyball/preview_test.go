package main

import (
	"strings"
	"testing"
)

// TestPlugin: under the name of a kubectl plugin it is the same program.
func TestPlugin(t *testing.T) {
	if err := run(t.Context(), []string{"/usr/bin/kubectl-flyball", "plan"}); err == nil || !strings.Contains(err.Error(), "name either an object") {
		t.Errorf("got %v", err)
	}
}
