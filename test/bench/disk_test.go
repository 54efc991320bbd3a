package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDiskWrites(t *testing.T) {
	dir := t.TempDir()
	before, err := diskWrites(dir)
	if errors.Is(err, errNoDevice) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	const size = 1 << 20
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte(rand.Text()+strings.Repeat("x", size)), 0o600); err != nil {
		t.Fatal(err)
	}
	after, err := diskWrites(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := after.bytes - before.bytes; got < size || after.writes == before.writes {
		t.Errorf("a file of %d bytes reached the disk as %.0f bytes in %.0f writes", size, got, after.writes-before.writes)
	}
}

func TestReportDisk(t *testing.T) {
	measured := func(megabytes float64) *figures {
		return &figures{disk: &written{bytes: megabytes * 1e6, writes: 50, over: 5 * time.Minute}}
	}
	for name, tc := range map[string]struct {
		reason  string
		results []*figures
		want    string
	}{
		"Both":     {"the ratio is what counts", []*figures{measured(0.5), measured(5)}, "idle disk writes with 3 Pods MB an hour 6.0 60.0 0.10"},
		"Alone":    {"without a yardstick there is no ratio", []*figures{measured(0.5)}, "the same writes a minute 10.0"},
		"NoDevice": {"a tmpfs writes to no disk, which is not a good figure but none", []*figures{measured(0.5), {}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			report(&out, tc.results)
			text := strings.Join(strings.Fields(out.String()), " ")
			if !strings.Contains(text, tc.want) || tc.want == "" && strings.Contains(text, "disk") {
				t.Errorf("%s\nwant %q in\n%s", tc.reason, tc.want, &out)
			}
		})
	}
}
