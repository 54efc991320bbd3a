package images

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// apt is a host's apt-get: it knows packages, or can fetch them, only if its lists are of today.
const apt = `#!/bin/sh
last=
for word; do case $word in update|--print-uris|--download-only) last=$word ;; esac; done
echo $last >>"$LOG"
case "$LISTS $last" in
*' update' | 'old --print-uris') exit 0 ;;
esac
grep -q update "$LOG"
`

func TestPackageLists(t *testing.T) {
	for name, tc := range map[string]struct {
		reason, lists string
		want          []string
	}{
		"None": {"a fresh machine does not know the packages", "none", []string{"--print-uris", "update", "--print-uris", "--download-only"}},
		"Old":  {"what old lists name may be gone from the archive", "old", []string{"--print-uris", "--download-only", "update", "--print-uris", "--download-only"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "apt-get"), []byte(apt), 0o755); err != nil {
				t.Fatal(err)
			}
			log := filepath.Join(dir, "log")
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			t.Setenv("LOG", log)
			t.Setenv("LISTS", tc.lists)
			if err := (debian{dir: dir}).unpack(t.Context(), tree{}, []string{"thing"}); err != nil {
				t.Fatal(err)
			}
			did, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, strings.Fields(string(did))); diff != "" {
				t.Errorf("%s: -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}
