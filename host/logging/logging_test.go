package logging

import (
	"bytes"
	"strings"
	"testing"
)

func TestProblems(t *testing.T) {
	tests := map[string]struct {
		line string
		kept bool
	}{
		"klog info":        {"I1122 17:00:00.000000       1 file.go:1] \"quota evaluator added\"\n", false},
		"klog warning":     {"W1122 17:00:00.000000       1 file.go:1] deprecated\n", true},
		"klog error":       {"E1122 17:00:00.000000       1 file.go:1] \"failed\"\n", true},
		"logrus info":      {"time=\"2026\" level=info msg=loading\n", false},
		"logrus warning":   {"time=\"2026\" level=warning msg=odd\n", true},
		"CoreDNS info":     {"2026/11/22 [INFO] plugin/ready\n", false},
		"CoreDNS error":    {"2026/11/22 [ERROR] plugin/errors: 2 example. A: timeout\n", true},
		"broken handshake": {"2026/11/22 http: TLS handshake error from 127.0.0.1:1: EOF\n", false},
		"empty":            {"\n", false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			n, err := problems{&out}.Write([]byte(tc.line))
			if n != len(tc.line) || err != nil {
				t.Errorf("Write() = %d, %v", n, err)
			}
			if kept := strings.Contains(out.String(), tc.line); kept != tc.kept {
				t.Errorf("kept is %t, want %t", kept, tc.kept)
			}
		})
	}
}
