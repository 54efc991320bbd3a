//go:build linux

package rootdir

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// state is what is there.
type state struct {
	dirs Dirs
	// owner is the data directory that Root belongs to; empty if nobody has said.
	owner string
	// ours says that owner is this node's data directory, whatever the path to it.
	ours bool
	// others are the entries of Root that a node agent makes, and not a driver.
	others []string
	// bound says that Root is a bind mount of the directory that DataDir/kubelet leads to. Otherwise
	// former is that directory, if it is another one than Root.
	bound  bool
	former string
	// moves are the renames that bring everything in former to Root. clashes are entries that both
	// have. emptied are the directories that are in the way of nothing afterwards, innermost first.
	moves   []move
	clashes []string
	emptied []string
}

// step is a thing to do. It may be repeated.
type step interface{ act(d Dirs) error }

type (
	// claim makes a directory and writes its owner.
	claim struct{ dir string }
	// move renames. fixed says why that is impossible; empty if it is possible.
	move struct{ from, to, fixed string }
	// prune removes empty directories and the owner files in them.
	prune struct{ dirs []string }
	// bind mounts the directory with the files at Root.
	bind struct{ from string }
	// point makes DataDir/kubelet lead to Root.
	point struct{}
)

// plan returns the steps from the state to a root directory that the node agent can use, or says why
// it must not.
func plan(s state) ([]step, error) {
	d := s.dirs
	if d.Root != d.Link() {
		if err := refuse(s); err != nil {
			return nil, err
		}
	}
	if s.bound {
		return nil, nil
	}
	fixed := slices.IndexFunc(s.moves, func(m move) bool { return m.fixed != "" })
	switch {
	case len(s.clashes) > 0:
		return nil, fmt.Errorf("moving the files of Pods from %s to the root directory %s: both have %s; remove the one that is not needed",
			s.former, d.Root, some(s.clashes))
	case fixed >= 0 && len(s.others) > 0:
		return nil, fmt.Errorf("moving the files of Pods from %s to the root directory %s: %s, and %s has files of Pods already; set kubelet.rootDir (--root-dir) to %s",
			s.former, d.Root, s.moves[fixed].fixed, d.Root, s.former)
	case fixed >= 0:
		// Where the mount is missing, the directory is still taken.
		return []step{claim{d.Root}, claim{s.former}, bind{s.former}}, nil
	}
	steps := []step{claim{d.Root}}
	for _, m := range s.moves {
		steps = append(steps, m)
	}
	if len(s.emptied) > 0 {
		steps = append(steps, prune{s.emptied})
	}
	if d.Root != d.Link() {
		steps = append(steps, point{})
	}
	return steps, nil
}

// TakenError says whose a root directory is that is not for this node.
type TakenError struct {
	// Detail says whose it is, Remedy what to do.
	Detail, Remedy string
}

func (e *TakenError) Error() string { return e.Detail + "; " + e.Remedy }

// refuse says whose Root is if it is not for this node.
func refuse(s state) error {
	const other = "set kubelet.rootDir (--root-dir) to another directory"
	switch {
	case s.ours:
		return nil
	case s.owner != "":
		return &TakenError{
			fmt.Sprintf("the root directory %s belongs to the node with the data directory %s", s.dirs.Root, s.owner),
			fmt.Sprintf("%s, or remove that node with `flyball down --purge --data-dir %s`", other, s.owner),
		}
	case len(s.others) > 0:
		return &TakenError{
			fmt.Sprintf("the root directory %s has files of another kubelet (%s)", s.dirs.Root, some(s.others)),
			other + ", or remove what that kubelet left, for example with `kubeadm reset`",
		}
	}
	return nil
}

// some names the first few.
func some(names []string) string {
	const few = 3
	if more := len(names) - few; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), more)
	}
	return strings.Join(names, ", ")
}

// drivers are the directories in a root directory that drivers and administrators make, without any
// kubelet.
var drivers = []string{"plugins", "plugins_registry", "device-plugins", "pod-resources", "seccomp", "lost+found", ownerFile}

// entries are all that the node agent keeps in its root directory. Anything else there belongs to
// others and stays.
var entries = []string{
	"pods", "volumes", "plugins", "plugins_registry", "allocations", "image_manager", "stopped-pods", ownerFile,
}

func entriesIn(dir string) []string {
	paths := make([]string, 0, len(entries))
	for _, name := range entries {
		paths = append(paths, filepath.Join(dir, name))
	}
	return paths
}
