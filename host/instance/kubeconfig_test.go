package instance

import (
	"os"
	"path/filepath"
	"testing"
)

// TestBypassProxy: what the user keeps out of the proxy stays out, and this machine's API server
// comes in addition.
func TestBypassProxy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, []byte("clusters:\n- name: a\n  cluster: {server: 'https://192.0.2.1:6443'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ upper, lower, file, want string }{
		"None":      {"", "", file, "192.0.2.1"},
		"Upper":     {"example.com", "", file, "example.com,192.0.2.1"},
		"Lower":     {"", "example.com", file, "example.com,192.0.2.1"},
		"NoCluster": {"example.com", "", file + "2", "example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NO_PROXY", tc.upper)
			t.Setenv("no_proxy", tc.lower)
			if err := bypassProxy(tc.file); err != nil || os.Getenv("NO_PROXY") != tc.want {
				t.Errorf("NO_PROXY is %q (%v), want %q", os.Getenv("NO_PROXY"), err, tc.want)
			}
		})
	}
}
