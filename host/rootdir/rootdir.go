//go:build linux

// Package rootdir prepares the root directory of the node agent (kubelet.rootDir), whose path the
// manifests of CSI drivers and device plugins name: it takes the directory for one data directory,
// moves there what an earlier start kept elsewhere, and gives all back at teardown.
//
// Two things on disk say what belongs together. The file flyball.owner in the root directory has
// the path of the data directory. DataDir/kubelet leads to the root directory: a link, or the
// directory itself where its files cannot be moved. Earlier versions kept the files there, and
// containers that they made have its path in their configuration.
//
// Pods run while their files move: a rename changes no file that is open and no mount, neither
// below nor in a container. Each step can be repeated after a crash. Where a rename is not possible,
// because the root directory lies on another file system, it is a bind mount of the directory that
// has the files, made again at each start. Nothing is ever copied.
//
// observe.go reads, plan.go is pure and decides, act.go carries out.
package rootdir

import (
	"fmt"
	"path/filepath"
)

// ownerFile in a root directory has the data directory that it belongs to.
const ownerFile = "flyball.owner"

// Dirs are the directories of one node.
type Dirs struct {
	// Root is kubelet.rootDir, Data is dataDir, which exists. Both are absolute.
	Root, Data string
}

// Link is the path in the data directory that leads to the root directory. It never changes, so it
// also stands for the node where others need a name for it.
func (d Dirs) Link() string { return filepath.Join(d.Data, "kubelet") }

// Check changes nothing. It returns the directory that has, or will have, the files: Root, unless
// that becomes a bind mount of another. The error says whose Root is if it is not for this node.
func (d Dirs) Check() (string, error) {
	s, err := observe(d)
	if err != nil {
		return d.Root, err
	}
	steps, err := plan(s)
	if err != nil {
		return d.Root, err
	}
	for _, step := range steps {
		if b, ok := step.(bind); ok {
			return b.from, nil
		}
	}
	return d.Root, nil
}

// Prepare takes Root for this node, with all that is in the directory that was in use before. The
// node agent must not run; Pods may. The mounts that hold Data and Root should be shared.
func (d Dirs) Prepare() error {
	s, err := observe(d)
	if err != nil {
		return err
	}
	steps, err := plan(s)
	if err != nil {
		return err
	}
	for _, step := range steps {
		if err := step.act(d); err != nil {
			return fmt.Errorf("preparing the root directory %s: %w", d.Root, err)
		}
	}
	return nil
}
