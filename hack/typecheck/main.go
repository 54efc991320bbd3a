// Command typecheck checks the types of packages, with all that they import, as they are compiled for other platforms. That
// finds what building would find in our own code: a name that only one system has, a file that is missing. It takes half a
// minute where compiling Kubernetes for another platform takes many.
//
//	typecheck -platforms darwin/arm64,windows/amd64 ./cmd/flyball
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const ours = "flyball.dev"

// listed is a package as `go list` describes it.
type listed struct {
	ImportPath string            `json:"ImportPath"`
	Dir        string            `json:"Dir"`
	GoFiles    []string          `json:"GoFiles"`
	ImportMap  map[string]string `json:"ImportMap"`
	Module     *struct {
		Path      string `json:"Path"`
		GoVersion string `json:"GoVersion"`
	} `json:"Module"`
	Error *struct {
		Err string `json:"Err"`
	} `json:"Error"`
}

func (p listed) ours() bool { return p.Module != nil && p.Module.Path == ours }

func main() {
	platforms := flag.String("platforms", "darwin/arm64,windows/amd64", "GOOS/GOARCH, separated by commas")
	flag.Parse()
	for platform := range strings.SplitSeq(*platforms, ",") {
		goos, goarch, _ := strings.Cut(platform, "/")
		n, err := check(goos, goarch, flag.Args())
		if err != nil {
			fmt.Fprintf(os.Stderr, "typecheck: %s:\n%v\n", platform, err)
			os.Exit(1)
		}
		fmt.Printf("%s: %d packages\n", platform, n)
	}
}

// check checks the packages in the order in which they depend on one another, and returns how many there are.
func check(goos, goarch string, patterns []string) (int, error) {
	packages, err := list(goos, goarch, patterns)
	if err != nil {
		return 0, err
	}
	done := map[string]*types.Package{"unsafe": types.Unsafe}
	files := token.NewFileSet()
	var found []error
	for _, p := range packages {
		if p.ImportPath == "unsafe" {
			continue
		}
		if p.Error != nil {
			found = append(found, errors.New(p.Error.Err))
			continue
		}
		syntax, err := parse(files, p)
		if err != nil {
			return 0, err
		}
		config := types.Config{
			Importer:         importer{done, p.ImportMap},
			IgnoreFuncBodies: !p.ours(),
			Sizes:            types.SizesFor("gc", goarch),
			Error: func(err error) {
				if p.ours() { // what is wrong in a dependency shows where we use it
					found = append(found, err)
				}
			},
		}
		if p.Module != nil && p.Module.GoVersion != "" {
			config.GoVersion = "go" + p.Module.GoVersion
		}
		done[p.ImportPath], _ = config.Check(p.ImportPath, files, syntax, nil)
	}
	return len(packages), errors.Join(found...)
}

// list returns the packages and all that they import, dependencies first.
func list(goos, goarch string, patterns []string) (packages []listed, err error) {
	cmd := exec.Command("go", append([]string{"list", "-e", "-deps", "-json=ImportPath,Dir,GoFiles,ImportMap,Module,Error"}, patterns...)...)
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing packages: %w", err)
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return packages, nil
		case err != nil:
			return nil, fmt.Errorf("reading the list of packages: %w", err)
		}
		packages = append(packages, p)
	}
}

func parse(files *token.FileSet, p listed) ([]*ast.File, error) {
	var syntax []*ast.File
	for _, name := range p.GoFiles {
		file, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("parsing: %w", err)
		}
		syntax = append(syntax, file)
	}
	return syntax, nil
}

// importer finds what has been checked.
type importer struct {
	done    map[string]*types.Package
	renamed map[string]string // vendored packages of the standard library
}

// Import implements types.Importer.
func (i importer) Import(path string) (*types.Package, error) {
	if actual := i.renamed[path]; actual != "" {
		path = actual
	}
	if p := i.done[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("there is no package %s on this platform", path)
}
