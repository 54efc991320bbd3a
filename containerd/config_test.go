//go:build linux

package containerd

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func exampleConfig() Config {
	return Config{
		BinDir: "/opt/flyball/bin", RootDir: "/var/lib/flyball/containerd", StateDir: "/run/flyball/containerd",
		Socket: "/run/flyball/containerd/containerd.sock", CNIBinDir: "/opt/flyball/bin/cni", CNIConfDir: "/run/flyball/cni",
		LogFile: "/var/lib/flyball/log/containerd.log", SandboxImage: "flyball.dev/pause:1", RegistryHosts: "/etc/flyball/certs.d",
	}
}

func TestRender(t *testing.T) {
	got, err := render(exampleConfig(), host{RestrictOOMScore: true})
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "config.toml")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("go test -update rewrites the file: -want +got\n%s", diff)
	}
	// containerd's own reader takes it.
	var parsed config.Config
	if err := config.LoadConfig(context.Background(), golden, &parsed); err != nil {
		t.Errorf("containerd cannot read it: %v", err)
	}
	if err := parsed.ValidateVersion(); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		change func(*Config)
		want   string
	}{
		"Good":     {reason: "the defaults are valid", change: func(*Config) {}},
		"Relative": {reason: "containerd's working directory is /", change: func(c *Config) { c.RootDir = "data" }, want: "RootDir"},
		"TooLong":  {reason: "a socket address has 108 bytes", change: func(c *Config) { c.StateDir = "/run/" + strings.Repeat("x", 50) }, want: "too long by 15"},
	} {
		t.Run(name, func(t *testing.T) {
			c := exampleConfig()
			tc.change(&c)
			err := c.validate()
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: got %v, want %q", tc.reason, err, tc.want)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	got := environment([]string{"SSL_CERT_DIR=/certs", "http_proxy=http://other", "PATH=/home/me/bin", "NOTIFY_SOCKET=/run/notify", "GOGC=off"},
		"/opt/bin", []string{"HTTPS_PROXY=http://proxy"})
	want := []string{
		"SSL_CERT_DIR=/certs", "PATH=/opt/bin:/usr/sbin:/usr/bin:/sbin:/bin", "CONTAINERD_DISABLE_PIGZ=true", "CONTAINERD_DISABLE_IGZIP=true",
		"GOGC=50", "HTTPS_PROXY=http://proxy",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestHasArgument(t *testing.T) {
	for name, tc := range map[string]struct {
		line string
		want bool
	}{
		"Ours":   {"/bin/containerd\x00--config\x00/run/a\x00", true},
		"Longer": {"/bin/containerd\x00--config\x00/run/ab\x00", false},
		"Inside": {"/bin/sh\x00-c\x00--config /run/a\x00", false},
	} {
		if got := hasArgument([]byte(tc.line), "--config", "/run/a"); got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

func TestRotate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	if err := rotate(file, 10); err != nil {
		t.Errorf("without a log: %v", err)
	}
	writer, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = writer.Close() }()
	for _, line := range []string{"first\n", "second\n", "third\n"} {
		if _, err := writer.WriteString(line); err != nil {
			t.Fatal(err)
		}
		if err := rotate(file, 10); err != nil {
			t.Fatal(err)
		}
	}
	now, _ := os.ReadFile(file)
	before, _ := os.ReadFile(file + ".1")
	if string(now) != "third\n" || string(before) != "first\nseco" {
		t.Errorf("log is %q, the one before %q", now, before)
	}
	if got := lastLine(file); got != "third" {
		t.Errorf("last line is %q", got)
	}
}

func TestSameUmask(t *testing.T) {
	ours := []byte("Name:\tflyball\nUmask:\t0022\nState:\tR (running)\n")
	for name, tc := range map[string]struct {
		theirs string
		want   bool
	}{
		"Same":    {"Name:\tcontainerd\nUmask:\t0022\n", true},
		"Tighter": {"Name:\tcontainerd\nUmask:\t0077\n", false},
	} {
		if got := sameUmask([]byte(tc.theirs), ours); got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

func TestSameProxy(t *testing.T) {
	for name, tc := range map[string]struct {
		environ string
		proxy   []string
		want    bool
	}{
		"None":    {"PATH=/bin\x00HOME=/\x00", nil, true},
		"Same":    {"NO_PROXY=a\x00PATH=/bin\x00https_proxy=http://p\x00", []string{"https_proxy=http://p", "NO_PROXY=a"}, true},
		"Other":   {"HTTPS_PROXY=http://p\x00", []string{"HTTPS_PROXY=http://q"}, false},
		"Removed": {"HTTPS_PROXY=http://p\x00", nil, false},
		"Added":   {"PATH=/bin\x00", []string{"HTTPS_PROXY=http://q"}, false},
	} {
		if got := sameProxy([]byte(tc.environ), tc.proxy); got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}
