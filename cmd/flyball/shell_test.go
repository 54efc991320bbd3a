//go:build linux

package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTakeProxy: the proxy of the shell is known, and no request of this process can go through it.
func TestTakeProxy(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "https_proxy", "NO_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	proxy := takeProxy()
	for _, name := range []string{"HTTP_PROXY", "https_proxy", "NO_PROXY"} {
		if value, found := os.LookupEnv(name); found {
			t.Errorf("%s is still %q", name, value)
		}
		if !slices.Contains(proxy, name+"=http://127.0.0.1:1") {
			t.Errorf("%s is lost: %q", name, proxy)
		}
	}
}

// TestPassProxy: what the user keeps out of the proxy stays out, and this machine's API server comes in addition.
func TestPassProxy(t *testing.T) {
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
			if err := passProxy(tc.file); err != nil || os.Getenv("NO_PROXY") != tc.want {
				t.Errorf("NO_PROXY is %q (%v), want %q", os.Getenv("NO_PROXY"), err, tc.want)
			}
		})
	}
}

// TestUmask: what is made is readable by whom it is for, whatever the umask of the shell.
func TestUmask(t *testing.T) {
	before := unix.Umask(0)
	defer unix.Umask(before)
	for _, shell := range []int{0, 0o022, 0o027, 0o077} {
		unix.Umask(shell)
		setUmask()
		if now := unix.Umask(0); now != 0o022 {
			t.Errorf("started with umask %#o, it has %#o", shell, now)
		}
	}
}
