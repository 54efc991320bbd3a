//go:build linux

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flyball.dev/apis/config/v1alpha1"
)

const configHeader = "apiVersion: config.flyball.dev/v1alpha1\nkind: FlyballConfiguration\n"

// TestLoadInUse: what is broken can be removed, and it warns of what it cannot read.
func TestLoadInUse(t *testing.T) {
	healthy, _ := joinedDir(t, time.Now().Add(time.Hour))
	broken, _ := joinedDir(t, time.Now().Add(time.Hour))
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
			runDir, flags := t.TempDir(), &configFlags{values: tc.flags}
			if tc.recorded != "" {
				if err := os.WriteFile(filepath.Join(runDir, "config.yaml"), []byte(tc.recorded), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tc.file != "" {
				flags.file = filepath.Join(t.TempDir(), "flyball.yaml")
				if err := os.WriteFile(flags.file, []byte(tc.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var warnings []error
			set, err := flags.loadInUse(runDir, func(err error) { warnings = append(warnings, err) })
			says(t, tc.reason, errors.Join(warnings...), tc.warns)
			says(t, tc.reason, err, tc.fails)
			if err == nil && (set.DataDir != tc.dataDir || set.ClusterDNS != tc.dns) {
				t.Errorf("%s: the data directory is %s and the cluster DNS %s, want %s and %s", tc.reason, set.DataDir, set.ClusterDNS, tc.dataDir, tc.dns)
			}
		})
	}
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
