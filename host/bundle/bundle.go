// Package bundle knows what is carried next to the flyball executable, and which versions of
// everything are in it.
package bundle

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"

	"k8s.io/component-base/version"
)

// Images that are preloaded.
const (
	PauseImage = "flyball.dev/pause:1"
	HelloImage = "flyball.dev/hello:1"
)

// Bundle is the directory of the flyball executable.
type Bundle struct{ Dir string }

// Find returns the bundle of this process. Links to the executable are followed.
func Find() (Bundle, error) {
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return Bundle{}, fmt.Errorf("finding the bundled programs: %w", err)
	}
	return Bundle{Dir: filepath.Dir(self)}, nil
}

// CNIDir holds the CNI plugins.
func (b Bundle) CNIDir() string { return filepath.Join(b.Dir, "cni") }

// Images are the archives of the preloaded images, the one that every Pod needs first.
func (b Bundle) Images() []string {
	return []string{filepath.Join(b.Dir, "images", "pause.tar"), filepath.Join(b.Dir, "images", "hello.tar")}
}

// Files must all exist for the bundled container runtime to work.
func (b Bundle) Files() []string {
	files := []string{b.Images()[0]}
	for _, p := range programs {
		files = append(files, filepath.Join(b.Dir, p.file))
	}
	return files
}

// programs are built by themselves; their version is that of the module that they come from.
var programs = []struct{ name, file, module string }{
	{"containerd", "containerd", "github.com/containerd/containerd/v2"},
	{"containerd-shim-runc-v2", "containerd-shim-runc-v2", "github.com/containerd/containerd/v2"},
	{"runc", "runc", "github.com/opencontainers/runc"},
	{"cni bridge", "cni/bridge", "github.com/containernetworking/plugins"},
	{"cni host-local", "cni/host-local", "github.com/containernetworking/plugins"},
	{"cni loopback", "cni/loopback", "github.com/containernetworking/plugins"},
	{"cni portmap", "cni/portmap", "github.com/containernetworking/plugins"},
}

// libraries are linked into the flyball executable.
var libraries = []struct{ name, module string }{
	{"kubernetes", "k8s.io/kubernetes"},
	{"etcd", "go.etcd.io/etcd/server/v3"},
	{"coredns", "github.com/coredns/coredns"},
	{"controller-runtime", "sigs.k8s.io/controller-runtime"},
}

// Component is a bundled program or library with its version.
type Component struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Versions are the versions of Flyball and of everything that is bundled.
type Versions struct {
	Flyball    string      `json:"flyball"`
	Components []Component `json:"parts"`
}

// Versions reads them.
func (b Bundle) Versions() Versions { return Versions{Flyball: Version(), Components: b.Components()} }

// Rows are the versions as lines of a table.
func (v Versions) Rows() []string {
	rows := []string{"flyball\t" + v.Flyball}
	for _, c := range v.Components {
		rows = append(rows, c.Name+"\t"+c.Version)
	}
	return rows
}

// Unknown stands for a version that cannot be read.
const Unknown = "unknown"

// Version of Flyball itself: of its module where it was built as one, of its commit where it was
// built from a clone.
func Version() string {
	const commitLength = 12
	info, found := debug.ReadBuildInfo()
	switch commit := version.Get().GitCommit; {
	case !found || info.Main.Version == "":
		return Unknown
	case info.Main.Version != "(devel)":
		return info.Main.Version
	case len(commit) >= commitLength:
		return "devel+" + commit[:commitLength]
	}
	return "devel"
}

// Components are the versions of everything that is bundled. They are read from the programs
// themselves, so a program that was replaced shows.
func (b Bundle) Components() []Component {
	components := []Component{{"go", runtime.Version()}}
	if info, found := debug.ReadBuildInfo(); found {
		for _, l := range libraries {
			components = append(components, Component{l.name, moduleVersion(info, l.module)})
		}
	}
	for _, p := range programs {
		version := "missing"
		info, err := buildinfo.ReadFile(filepath.Join(b.Dir, p.file))
		switch {
		case err == nil:
			version = moduleVersion(info, p.module)
		case !errors.Is(err, fs.ErrNotExist):
			version = Unknown
		}
		components = append(components, Component{p.name, version})
	}
	return components
}

func moduleVersion(info *debug.BuildInfo, module string) string {
	i := slices.IndexFunc(info.Deps, func(m *debug.Module) bool { return m.Path == module })
	switch {
	case i >= 0:
		return info.Deps[i].Version
	case info.Main.Path == module:
		return info.Main.Version
	}
	return Unknown
}
