package network

import (
	"os"
	"testing"
)

func TestProbe(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a network namespace takes root")
	}
	for name, err := range Probe() {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
