package flyballtest

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

// programPackage is the package of the program, by which it is built and recognized.
const programPackage = "flyball.dev/cmd/flyball"

// Environment variables with the directory of the program, under its own name or as kube-apiserver.
var assetVariables = []string{"FLYBALL_ASSETS", "KUBEBUILDER_ASSETS"}

// findProgram returns the path of the program flyball. It builds the program if necessary.
func findProgram(ctx context.Context, named string) (string, error) {
	if named != "" {
		if !isFlyball(named) {
			return "", fmt.Errorf("finding the program flyball: %s is another program", named)
		}
		return filepath.Abs(named)
	}
	for _, variable := range assetVariables {
		dir := os.Getenv(variable)
		if dir == "" {
			continue
		}
		for _, name := range []string{"flyball", "kube-apiserver"} {
			if path := filepath.Join(dir, name+extension()); isFlyball(path) {
				return filepath.Abs(path)
			}
		}
		if variable == assetVariables[0] {
			return "", fmt.Errorf("finding the program flyball: it is not in the directory %s of %s", dir, variable)
		} // the other directory may have upstream's kube-apiserver
	}
	if path, err := exec.LookPath("flyball"); err == nil && isFlyball(path) {
		return filepath.Abs(path)
	}
	return build(ctx)
}

func extension() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}

// isFlyball reports whether a program was built from programPackage.
func isFlyball(path string) bool {
	info, err := buildinfo.ReadFile(path)
	return err == nil && info.Path == programPackage
}

// building allows one build at a time in this process.
var building sync.Mutex

// build builds the program within the module of the test, which is in the current directory. Go
// decides what to build, and takes a moment if nothing has changed.
func build(ctx context.Context) (string, error) {
	building.Lock()
	defer building.Unlock()
	dir, err := buildDir(ctx)
	if err != nil {
		return "", err
	}
	unlock, err := lock(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	path := filepath.Join(dir, "flyball"+extension())
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", path, programPackage)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -buildvcs=false"))
	cmd.Stderr = &stderr
	switch err := cmd.Run(); {
	case errors.Is(err, exec.ErrNotFound):
		return "", errors.New("finding the program flyball: it is neither in PATH nor in the directory FLYBALL_ASSETS, and there is no go command to build it")
	case err != nil:
		return "", fmt.Errorf("building %s: %w\n%s\nif the module does not require it, run: go get -tool %s", programPackage, err, strings.TrimSpace(stderr.String()), programPackage)
	}
	return path, nil
}

// buildDir is the directory of this module's program: modules may need different versions of it.
func buildDir(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the user's cache directory: %w; set XDG_CACHE_HOME, or FLYBALL_ASSETS to the directory of the program", err)
	}
	module := "default"
	if out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output(); err == nil {
		module = shortHash(strings.TrimSpace(string(out)))
	}
	dir := filepath.Join(cache, "flyball", "flyballtest", module)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("creating the directory of the program: %w; set XDG_CACHE_HOME to a directory that you may write to", err)
	}
	return dir, nil
}
