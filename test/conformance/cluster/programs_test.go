package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is not built is told by name and all at once, and the build changes with each of the programs.
func TestPrograms(t *testing.T) {
	c := Cluster{Bin: t.TempDir()}
	err := c.Check()
	for _, name := range append([]string{"machine", "make build bin/machine"}, product...) {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Fatalf("nothing is built, and %q is not in the error: %v", name, err)
		}
	}
	builds := map[string]string{}
	for _, name := range product {
		if err := os.MkdirAll(filepath.Dir(c.program(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(c.program(name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range append([]string{"nothing"}, product...) {
		if name != "nothing" {
			if err := os.WriteFile(c.program(name), []byte("another "+name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		build, err := c.Build()
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := c.Build(); again != build {
			t.Errorf("the same programs are the builds %s and %s", build, again)
		}
		if other, ok := builds[build]; ok {
			t.Errorf("a change of %s gives the same build as one of %s", name, other)
		}
		builds[build] = name
	}
}
