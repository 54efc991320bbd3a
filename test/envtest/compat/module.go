package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const controllerRuntime = "sigs.k8s.io/controller-runtime"

// module is a copy of controller-runtime.
type module struct{ dir, out string }

// pkg is one package of it that has tests, as `go list` describes it.
type pkg struct {
	ImportPath   string   `json:"ImportPath"`
	Dir          string   `json:"Dir"`
	TestGoFiles  []string `json:"TestGoFiles"`
	XTestGoFiles []string `json:"XTestGoFiles"`
	TestImports  []string `json:"TestImports"`
	XTestImports []string `json:"XTestImports"`
}

func (p pkg) name() string { return strings.TrimPrefix(p.ImportPath, controllerRuntime+"/pkg/") }

// ginkgo: such a package reports its tests by itself.
func (p pkg) ginkgo() bool {
	return slices.Contains(slices.Concat(p.TestImports, p.XTestImports), "github.com/onsi/ginkgo/v2")
}

// copyModule copies controller-runtime at our version to out, and gives it our versions of Kubernetes' modules.
func copyModule(ctx context.Context, out string) (module, error) {
	m := module{dir: filepath.Join(out, "controller-runtime"), out: out}
	found, err := output(ctx, ".", "go", "list", "-m", "-json", controllerRuntime, "k8s.io/api")
	if err != nil {
		return m, err
	}
	dirs, versions := map[string]string{}, map[string]string{}
	for d := json.NewDecoder(strings.NewReader(found)); ; {
		var got struct {
			Path    string `json:"Path"`
			Version string `json:"Version"`
			Dir     string `json:"Dir"`
		}
		if err := d.Decode(&got); err == io.EOF {
			break
		} else if err != nil {
			return m, fmt.Errorf("reading the versions of modules: %w", err)
		}
		dirs[got.Path], versions[got.Path] = got.Dir, got.Version
	}
	if err := os.RemoveAll(m.dir); err != nil {
		return m, fmt.Errorf("removing an old copy: %w", err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return m, fmt.Errorf("making the directory of results: %w", err)
	}
	if err := os.CopyFS(m.dir, os.DirFS(dirs[controllerRuntime])); err != nil {
		return m, fmt.Errorf("copying controller-runtime: %w", err)
	}
	scripts, err := filepath.Glob(filepath.Join(m.dir, "pkg", "internal", "testing", "*", "testdata", "*.sh"))
	if err != nil {
		return m, fmt.Errorf("finding the tests' scripts: %w", err)
	}
	for _, script := range scripts { // which a module's archive keeps no mode of
		if err := os.Chmod(script, 0o755); err != nil {
			return m, fmt.Errorf("making the tests' scripts executable: %w", err)
		}
	}
	gomod, err := output(ctx, ".", "go", "env", "GOMOD")
	if err != nil {
		return m, err
	}
	return m, m.require(versions["k8s.io/api"], filepath.Join(filepath.Dir(gomod), "go.sum"))
}

// require puts version of all Kubernetes modules with a common version into the copy's go.mod.
func (m module) require(version, ourSums string) error {
	path := filepath.Join(m.dir, "go.mod")
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the copy's go.mod: %w", err)
	}
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		if f := strings.Fields(line); len(f) >= 2 && strings.HasPrefix(f[0], "k8s.io/") && strings.HasPrefix(f[1], "v0.37.") {
			lines[i] = "\t" + f[0] + " " + version
		}
	}
	sums, err := os.ReadFile(ourSums)
	if err != nil {
		return fmt.Errorf("reading our go.sum: %w", err)
	}
	theirs, err := os.ReadFile(filepath.Join(m.dir, "go.sum"))
	if err != nil {
		return fmt.Errorf("reading the copy's go.sum: %w", err)
	}
	for name, content := range map[string]string{"go.mod": strings.Join(lines, "\n"), "go.sum": string(theirs) + string(sums)} {
		file := filepath.Join(m.dir, name)
		if err := os.Chmod(file, 0o644); err != nil {
			return fmt.Errorf("changing the copy's %s: %w", name, err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return fmt.Errorf("changing the copy's %s: %w", name, err)
		}
	}
	return nil
}

// list returns the packages that have tests.
func (m module) list(ctx context.Context, pattern string) (list []pkg, err error) {
	out, err := output(ctx, m.dir, "go", "list", "-mod=mod", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles,TestImports,XTestImports", pattern)
	if err != nil {
		return nil, err
	}
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var p pkg
		switch err := d.Decode(&p); {
		case err == io.EOF:
			return list, nil
		case err != nil:
			return nil, fmt.Errorf("reading the list of packages: %w", err)
		case len(p.TestGoFiles)+len(p.XTestGoFiles) > 0:
			list = append(list, p)
		}
	}
}

// compile makes the program that runs the tests of a package.
func (m module) compile(ctx context.Context, p pkg) (string, error) {
	program := filepath.Join(m.out, strings.ReplaceAll(p.name(), "/", "-")+".test")
	_, err := output(ctx, m.dir, "go", "test", "-mod=mod", "-c", "-o", program, p.ImportPath)
	return program, err
}

// output is what a command prints.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stderr = dir, &stderr
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("running %s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}
