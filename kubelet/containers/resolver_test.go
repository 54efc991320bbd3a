package containers

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestHostDNS(t *testing.T) {
	for name, tc := range map[string]struct {
		reason, conf             string
		upstream, want, loopback []string
	}{
		"Plain":    {"servers that a Pod reaches stay", "nameserver 192.0.2.1\n", []string{"192.0.2.9"}, []string{"192.0.2.1"}, nil},
		"Stub":     {"systemd-resolved has upstream servers", "nameserver 127.0.0.53\n", []string{"192.0.2.9", "127.0.0.1"}, []string{"192.0.2.9"}, nil},
		"Both":     {"each server once", "nameserver ::1\nnameserver 192.0.2.1\n", []string{"192.0.2.1", "192.0.2.9"}, []string{"192.0.2.1", "192.0.2.9"}, nil},
		"Loopback": {"there is no other", "nameserver 127.0.0.1\nnameserver ::1\n", nil, nil, []string{"127.0.0.1", "::1"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := hostDNS(parseResolvConf(tc.conf), tc.upstream)
			if diff := cmp.Diff(tc.want, got.Servers, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s: servers -want +got\n%s", tc.reason, diff)
			}
			if diff := cmp.Diff(tc.loopback, got.Loopback, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s: loopback -want +got\n%s", tc.reason, diff)
			}
		})
	}
}

// TestResolverFollows: a file that DHCP replaces counts from the next Pod on, and so does a link
// that leads elsewhere.
func TestResolverFollows(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "resolv.conf")
	write := func(name, server string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("nameserver "+server+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	r := &Resolver{file: file, upstream: filepath.Join(dir, "none")}
	expect := func(server string) {
		t.Helper()
		if diff := cmp.Diff([]string{server}, r.HostDNS().Servers); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
	write("resolv.conf", "192.0.2.1")
	expect("192.0.2.1")
	if err := os.Rename(write("new", "192.0.2.2"), file); err != nil {
		t.Fatal(err)
	}
	expect("192.0.2.2")
	target := write("other", "192.0.2.3")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, file); err != nil {
		t.Fatal(err)
	}
	expect("192.0.2.3")
}
