package flyballtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What cannot be found or built is an error that says what to do. That it is built is seen by
// TestProcesses.
func TestFindProgram(t *testing.T) {
	empty := t.TempDir()
	module := t.TempDir()
	if err := os.WriteFile(filepath.Join(module, "go.mod"), []byte("module example.com/widgets\n\ngo 1.26\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		reason, named string
		env           map[string]string
		want          string
	}{
		"named":      {reason: "another program is not started", named: os.Args[0], want: os.Args[0] + " is another program"},
		"assets":     {reason: "the variable is ours, so it is a mistake", env: map[string]string{"FLYBALL_ASSETS": empty}, want: empty + " of FLYBALL_ASSETS"},
		"no go":      {reason: "upstream's assets are no mistake", env: map[string]string{"KUBEBUILDER_ASSETS": empty, "PATH": empty}, want: "there is no go command to build it"},
		"not a tool": {reason: "go can build what the module requires only", want: "go get -tool flyball.dev/cmd/flyball"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOCACHE", goCache(t))
			t.Setenv("XDG_CACHE_HOME", t.TempDir())
			t.Setenv("GOFLAGS", "")
			t.Setenv("GOPROXY", "off")
			t.Chdir(module)
			for _, variable := range assetVariables {
				t.Setenv(variable, "")
			}
			for variable, value := range test.env {
				t.Setenv(variable, value)
			}
			if path, err := findProgram(t.Context(), test.named); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: found %q, %v; want an error that says %q", test.reason, path, err, test.want)
			}
		})
	}
}

// goCache keeps go from filling another cache.
func goCache(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("GOCACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "go-build")
}
