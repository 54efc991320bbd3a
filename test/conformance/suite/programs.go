package suite

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Programs are those that a run needs. Build makes them.
type Programs struct {
	Dir string
	// Driver is a file that describes a storage driver, which the suite has tests for then. Empty for none.
	Driver string
}

// flags are those of every call of E2E.
func (p Programs) flags() []string {
	flags := []string{"--provider=skeleton"}
	if p.Driver != "" {
		flags = append(flags, "--storage.testdriver="+p.Driver)
	}
	return flags
}

// E2E is the path of the suite's program, Kubectl of the kubectl that tests of sig-cli run.
func (p Programs) E2E() string     { return filepath.Join(p.Dir, "e2e.test") }
func (p Programs) Kubectl() string { return filepath.Join(p.Dir, "kubectl") }

// Version returns the pinned version of Kubernetes, such as v1.37.2.
func Version(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes").Output()
	if err != nil {
		return "", fmt.Errorf("reading the version of k8s.io/kubernetes from go.mod: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Build compiles both programs at the pinned version. It must run inside the module of the conformance suite.
func (p Programs) Build(ctx context.Context, version string, progress func(step string)) error {
	dir, err := filepath.Abs(p.Dir)
	if err != nil {
		return err
	}
	flags := ldflags(version)
	for _, c := range []struct {
		name string
		args []string
	}{
		{"kubectl", []string{"build", "-ldflags", flags, "-o", filepath.Join(dir, "kubectl"), "k8s.io/kubernetes/cmd/kubectl"}},
		{"e2e.test", []string{"test", "-c", "-ldflags", flags, "-o", filepath.Join(dir, "e2e.test"), "k8s.io/kubernetes/test/e2e"}},
	} {
		progress("build " + c.name)
		cmd := exec.CommandContext(ctx, "go", c.args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", c.name, err, out)
		}
	}
	return nil
}

// ldflags set the version that the suite and kubectl say they are of.
func ldflags(version string) string {
	number := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	flags := []string{"-s", "-w"}
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags = append(flags, "-X "+pkg+".gitVersion="+version, "-X "+pkg+".gitMajor="+number[0], "-X "+pkg+".gitMinor="+number[1], "-X "+pkg+".gitTreeState=clean")
	}
	return strings.Join(flags, " ")
}
