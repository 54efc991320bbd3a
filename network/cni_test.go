package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// foreignRuntime is the configuration for a runtime that is not ours, whose directories hold files
// of others.
func foreignRuntime(t *testing.T, conf, bin map[string]string) (Config, Wanted) {
	t.Helper()
	root := t.TempDir()
	cfg := Config{
		CNIConfDir: filepath.Join(root, "net.d"), IPAMDir: filepath.Join(root, "networks"),
		CNIBinDir: filepath.Join(root, "bin"), PluginDir: filepath.Join(root, "ours"),
	}
	put(t, cfg.PluginDir, map[string]string{"bridge": "ours", "host-local": "ours", "loopback": "ours"})
	put(t, cfg.CNIConfDir, conf)
	put(t, cfg.CNIBinDir, bin)
	return cfg, Wanted{PodCIDRs: []netip.Prefix{p("10.42.3.0/24")}, Gateways: []netip.Prefix{p("10.42.3.1/24")}, MTU: 1500}
}

func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// contents follows links.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found[e.Name()] = string(content)
	}
	return found
}

func TestConfigureCNI(t *testing.T) {
	for name, tc := range map[string]struct {
		reason    string
		conf, bin map[string]string
		wantBin   map[string]string // with ours
		err       string
	}{
		"Empty": {
			reason:  "the runtime has nothing yet",
			wantBin: map[string]string{"flyball-bridge": "ours", "flyball-host-local": "ours", "flyball-loopback": "ours", "loopback": "ours"},
		},
		"Shared": {
			reason:  "files of others stay, and ours comes first",
			conf:    map[string]string{"10-containerd-net.conflist": "theirs", "00-a.bak": "theirs"},
			bin:     map[string]string{"bridge": "theirs", "loopback": "theirs"},
			wantBin: map[string]string{"bridge": "theirs", "flyball-bridge": "ours", "flyball-host-local": "ours", "flyball-loopback": "ours", "loopback": "theirs"},
		},
		"Later": {reason: "the runtime would take theirs", conf: map[string]string{"00-a.conf": "theirs"}, err: "00-a.conf before our"},
		"Taken": {reason: "our name is no licence", conf: map[string]string{conflistName: `{"name": "theirs"}`}, err: "is there already"},
		"Plugin": {
			reason: "a program of others is not replaced", bin: map[string]string{"flyball-bridge": "theirs"}, err: "no link of ours",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, wanted := foreignRuntime(t, tc.conf, tc.bin)
			for range 2 { // the second time there is nothing to do
				err := configureCNI(cfg, wanted)
				if tc.err != "" {
					if err == nil || !strings.Contains(err.Error(), tc.err) {
						t.Errorf("%s: error %v, want %q", tc.reason, err, tc.err)
					}
					continue
				}
				if err != nil {
					t.Fatalf("%s: %v", tc.reason, err)
				}
				if diff := cmp.Diff(tc.wantBin, contents(t, cfg.CNIBinDir)); diff != "" {
					t.Errorf("%s: plugins -want +got:\n%s", tc.reason, diff)
				}
				if got := contents(t, cfg.CNIConfDir)[conflistName]; !strings.Contains(got, `"flyball-bridge"`) || !strings.Contains(got, `"flyball-host-local"`) {
					t.Errorf("%s: the configuration names other plugins:\n%s", tc.reason, got)
				}
			}
			for range 2 {
				if err := removeConflist(cfg.CNIConfDir); err != nil {
					t.Error(err)
				}
				if err := unlinkPlugins(cfg.CNIBinDir, t.TempDir()); err != nil {
					t.Error(err)
				}
			}
			if tc.conf == nil {
				tc.conf = map[string]string{}
			}
			if tc.bin == nil {
				tc.bin = map[string]string{}
			}
			if diff := cmp.Diff(tc.conf, contents(t, cfg.CNIConfDir)); diff != "" {
				t.Errorf("%s: configurations of others -want +got:\n%s", tc.reason, diff)
			}
			if diff := cmp.Diff(tc.bin, contents(t, cfg.CNIBinDir)); diff != "" {
				t.Errorf("%s: plugins of others -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

// TestLoopbackInUse: the runtime could not remove the sandboxes that others made meanwhile.
func TestLoopbackInUse(t *testing.T) {
	cfg, wanted := foreignRuntime(t, nil, nil)
	if err := configureCNI(cfg, wanted); err != nil {
		t.Fatal(err)
	}
	results := t.TempDir()
	put(t, results, map[string]string{"cni-loopback-0123-lo": "theirs"})
	if err := unlinkPlugins(cfg.CNIBinDir, results); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"flyball-loopback": "ours", "loopback": "ours"}
	if diff := cmp.Diff(want, contents(t, cfg.CNIBinDir)); diff != "" {
		t.Errorf("plugins -want +got:\n%s", diff)
	}
}

// TestUpgradedPlugins: links to the plugins of the version before are replaced.
func TestUpgradedPlugins(t *testing.T) {
	cfg, wanted := foreignRuntime(t, nil, nil)
	if err := configureCNI(cfg, wanted); err != nil {
		t.Fatal(err)
	}
	old := cfg.PluginDir
	cfg.PluginDir = filepath.Join(filepath.Dir(old), "newer")
	put(t, cfg.PluginDir, map[string]string{"bridge": "newer", "host-local": "newer", "loopback": "newer"})
	if err := os.RemoveAll(old); err != nil {
		t.Fatal(err)
	}
	if err := configureCNI(cfg, wanted); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"flyball-bridge": "newer", "flyball-host-local": "newer", "flyball-loopback": "newer", "loopback": "newer"}
	if diff := cmp.Diff(want, contents(t, cfg.CNIBinDir)); diff != "" {
		t.Errorf("plugins -want +got:\n%s", diff)
	}
}
