package pod

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRemoveLog(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"1.log", "1.log.20300101-000000", "1.log.20290101-000000.gz", "2.log"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	removeLog(filepath.Join(dir, "1.log"))
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{filepath.Join(dir, "2.log")}, left); diff != "" {
		t.Errorf("left -want +got:\n%s", diff)
	}
}
