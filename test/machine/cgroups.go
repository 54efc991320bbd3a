//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hierarchy is a cgroup file system that the host has mounted.
type hierarchy struct {
	Path    string `json:"path"` // where it is mounted
	V2      bool   `json:"v2"`
	Options string `json:"options"` // that mount it again
}

// hierarchies returns those of the host, in the order they were mounted.
func hierarchies() ([]hierarchy, error) {
	body, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("listing cgroup hierarchies: %w", err)
	}
	all := parseHierarchies(string(body))
	if len(all) == 0 {
		return nil, errors.New("listing cgroup hierarchies: none is mounted; mount cgroup2 at /sys/fs/cgroup")
	}
	return all, nil
}

func parseHierarchies(mountinfo string) []hierarchy {
	var all []hierarchy
	for line := range strings.Lines(mountinfo) {
		mount, fstype, _ := strings.Cut(line, " - ")
		where, what := strings.Fields(mount), strings.Fields(fstype)
		// Only whole hierarchies, and where the field expects them: container runtimes mount parts of them elsewhere.
		if len(where) < 5 || len(what) < 3 || where[3] != "/" || !strings.HasPrefix(where[4], "/sys/fs/cgroup") {
			continue
		}
		h := hierarchy{Path: where[4], V2: what[0] == "cgroup2"}
		if what[0] == "cgroup" {
			for option := range strings.SplitSeq(what[2], ",") {
				switch {
				case option == "rw", option == "ro", strings.HasPrefix(option, "release_agent="), option == "clone_children", option == "xattr":
				case strings.HasPrefix(option, "name="):
					h.Options += ",none," + option
				default:
					h.Options += "," + option
				}
			}
			h.Options = strings.TrimPrefix(h.Options, ",")
		} else if !h.V2 {
			continue
		}
		all = append(all, h)
	}
	return all
}

// of returns a machine's cgroup.
func (h hierarchy) of(name string) string { return filepath.Join(h.Path, "flyball-machine-"+name) }

// leaf is the cgroup of processes below the machine's. In version 2, a cgroup that hands controllers on has no processes.
func (h hierarchy) leaf() string {
	if h.V2 {
		return "init"
	}
	return ""
}

func (h hierarchy) create(name string) error {
	dir := h.of(name)
	if err := os.MkdirAll(filepath.Join(dir, h.leaf()), 0o755); err != nil {
		return fmt.Errorf("making the cgroup %s: %w", dir, err)
	}
	if h.V2 {
		return handOn(h.Path)
	}
	// A new cpuset is empty, and takes no process.
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(h.Path, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), value, 0)
		}
		if err != nil {
			return fmt.Errorf("making the cgroup %s: %w", dir, err)
		}
	}
	return nil
}

// join moves this process into the machine's cgroup, or one below.
func (h hierarchy) join(name, below string) error { return move(filepath.Join(h.of(name), below), 0) }

func move(dir string, pid int) error {
	err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
	if err != nil {
		return fmt.Errorf("joining the cgroup %s: %w", dir, err)
	}
	return nil
}

// delegate moves this process and the machine's first one out of the way, where that is needed to hand controllers on.
func (h hierarchy) delegate(name string, first int) error {
	if !h.V2 {
		return nil
	}
	leaf := filepath.Join(h.of(name), h.leaf())
	if err := errors.Join(move(leaf, 0), move(leaf, first)); err != nil {
		return err
	}
	return handOn(h.of(name))
}

// handOn lets the cgroups below have all controllers.
func handOn(dir string) error {
	body, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("reading controllers of the cgroup %s: %w", dir, err)
	}
	for controller := range bytes.FieldsSeq(body) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), append([]byte("+"), controller...), 0); err != nil {
			return fmt.Errorf("handing on controller %s of the cgroup %s: %w", controller, dir, err)
		}
	}
	return nil
}

// remove removes the machine's cgroup with all below. Processes that have been killed take a moment to leave.
func (h hierarchy) remove(name string) error {
	var err error
	for range 100 {
		if err = prune(h.of(name)); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("removing the cgroup %s: %w", h.of(name), err)
}

func prune(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	for _, d := range slices.Backward(dirs) {
		if e := unix.Rmdir(d); e != nil && !errors.Is(e, unix.ENOENT) {
			err = errors.Join(err, e)
		}
	}
	return err
}
