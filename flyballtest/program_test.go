package flyballtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What cannot be found or built is an error that says what to do. That it is built is seen by TestProcesses.
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
		"named":      {reason: "another program is not started", named: os.Args[0], want: os.Args[0] + " is not it"},
		"assets":     {reason: "the variable is ours, so it is a mistake", env: map[string]string{"FLYBALL_ASSETS": empty}, want: empty + " that FLYBALL_ASSETS names"},
		"no go":      {reason: "upstream's assets are no mistake", env: map[string]string{"KUBEBUILDER_ASSETS": empty, "PATH": empty}, want: "there is no go to build it with"},
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

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	tired := errors.New("tired")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, tired)
	defer cancel()
	if _, err := lock(ctx, path); !errors.Is(err, tired) || !strings.Contains(err.Error(), path) {
		t.Errorf("locking what is locked: %v, want an error that names the file", err)
	}
	unlock()
	if unlock, err = lock(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	unlock()

	// Whoever had this one has died.
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * lockStale)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if unlock, err = lock(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	unlock()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock that was let go: %v", err)
	}
}
