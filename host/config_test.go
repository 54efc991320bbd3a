//go:build linux

package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flyball.dev/apis/config/v1alpha1"
)

const configHeader = "apiVersion: config.flyball.dev/v1alpha1\nkind: FlyballConfiguration\n"

// TestLoadInUse: what is broken can be removed, and it warns of what it cannot read.
func TestLoadInUse(t *testing.T) {
	healthy, broken := joinedDir(t), joinedDir(t)
	if err := os.WriteFile(filepath.Join(broken, "agent", "cluster.yaml"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	cluster := filepath.Join(broken, "agent", "cluster.yaml")
	for name, tc := range map[string]struct {
		reason   string
		file     string // of --config; none if empty
		recorded string // in the run-time directory; none if empty
		flags    v1alpha1.FlyballConfiguration
		dataDir  string
		dns      string
		warns    []string
		fails    []string
	}{
		"Fresh":          {reason: "nothing was ever started", dataDir: v1alpha1.DefaultDataDir, dns: "10.43.0.10"},
		"InUse":          {reason: "what was made is removed", recorded: "dataDir: " + healthy + "\nnodeName: n2\nnodeIP: 192.0.2.2\n", dataDir: healthy, dns: "10.2.0.10"},
		"AfterReboot":    {reason: "the run-time directory is gone", flags: v1alpha1.FlyballConfiguration{DataDir: healthy}, dataDir: healthy, dns: "10.2.0.10"},
		"Contradiction":  {reason: "the file was changed after joining", file: configHeader + "dataDir: " + healthy + "\nnodeName: other\n", dataDir: healthy, dns: "10.2.0.10"},
		"BrokenJoined":   {reason: "a damaged cluster.yaml keeps nobody from removing it", flags: v1alpha1.FlyballConfiguration{DataDir: broken}, dataDir: broken, dns: "10.43.0.10", warns: []string{cluster}},
		"BrokenByConfig": {reason: "nor if the directory is said in a file", file: configHeader + "dataDir: " + broken + "\n", dataDir: broken, dns: "10.43.0.10", warns: []string{cluster}},
		"NoNameServer":   {reason: "a machine without a network can be cleaned up", file: configHeader + "dataDir: " + healthy + "\nserver: https://server..example:6443\n", dataDir: healthy, dns: "10.2.0.10"},
		"BrokenRecord":   {reason: "the disk was full", recorded: "{", flags: v1alpha1.FlyballConfiguration{DataDir: healthy}, dataDir: healthy, dns: "10.2.0.10", warns: []string{"config.yaml", "last in use", "--data-dir"}},
		"InvalidRecord":  {reason: "another version wrote it: where the data lies still counts", recorded: "dataDir: " + healthy + "\nport: 70000\n", dataDir: healthy, dns: "10.2.0.10", warns: []string{"last in use", "port"}},
		"BrokenFile":     {reason: "it may be about another directory", file: "{", fails: []string{"configuration file", "without --config", "--data-dir"}},
		"RecordedRoot":   {reason: "never the whole disk", recorded: "dataDir: /\n", warns: []string{"dataDir"}, fails: []string{"dataDir"}},
	} {
		t.Run(name, func(t *testing.T) {
			runDir, source := t.TempDir(), Source{Flags: tc.flags}
			if tc.recorded != "" {
				if err := os.WriteFile(filepath.Join(runDir, "config.yaml"), []byte(tc.recorded), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tc.file != "" {
				source.File = filepath.Join(t.TempDir(), "flyball.yaml")
				if err := os.WriteFile(source.File, []byte(tc.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var warnings []error
			set, err := source.LoadInUse(runDir, func(err error) { warnings = append(warnings, err) })
			says(t, tc.reason, errors.Join(warnings...), tc.warns)
			says(t, tc.reason, err, tc.fails)
			if err == nil && (set.DataDir != tc.dataDir || set.ClusterDNS != tc.dns) {
				t.Errorf("%s: the data directory is %s and the cluster DNS %s, want %s and %s", tc.reason, set.DataDir, set.ClusterDNS, tc.dataDir, tc.dns)
			}
		})
	}
}

// joinedDir is the data directory of a host that has joined.
func joinedDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	const cluster = "server: https://192.0.2.1:6443\nnodeName: n2\nclusterCIDR: 10.1.0.0/16\nserviceCIDR: 10.2.0.0/16\n" +
		"clusterDNS: 10.2.0.10\nclusterDomain: example.internal\n"
	err := os.Mkdir(filepath.Join(dir, "agent"), 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "agent", "cluster.yaml"), []byte(cluster), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestLoad: flags override the file, and the defaults follow both.
func TestLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	text := configHeader + "port: 7443\nnodeName: one\nnodeIP: 192.0.2.7\nserviceCIDR: 10.99.0.0/16\nserver: https://192.0.2.1:6443/\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := v1alpha1.FlyballConfiguration{DataDir: t.TempDir(), Port: 8443}
	got, _, err := Source{File: file, Flags: flags}.Load()
	if err != nil {
		t.Fatal(err)
	}
	if got.Port != 8443 || got.NodeName != "one" {
		t.Errorf("port is %d, and the node %s: flags override the file where they are given", got.Port, got.NodeName)
	}
	if got.DNSAddrs[0].String() != "10.99.0.10" {
		t.Errorf("cluster DNS is %s: its default follows the Service range", got.DNSAddrs)
	}
	if got.Server != "https://192.0.2.1:6443" {
		t.Errorf("the server is %q: a trailing slash does not make it another one", got.Server)
	}
	_, _, err = Source{File: filepath.Join(t.TempDir(), "none.yaml")}.Load()
	says(t, "a file that is not there is not an empty one", err, []string{"none.yaml"})
}

func says(t *testing.T, reason string, err error, want []string) {
	t.Helper()
	if (err != nil) != (len(want) > 0) {
		t.Fatalf("%s: it says %v, want %q", reason, err, want)
	}
	for _, part := range want {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s: it says %v, want %q", reason, err, part)
		}
	}
}
