//go:build linux

package rootdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"flyball.dev/internal/atomicfile"
	"flyball.dev/internal/mounts"
)

func (c claim) act(d Dirs) error {
	if owner, err := readOwner(c.dir); err != nil || owner != "" && same(owner, d.Data) {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return fmt.Errorf("making the directory: %w", err)
	}
	return atomicfile.Write(filepath.Join(c.dir, ownerFile), []byte(d.Data+"\n"), 0o644)
}

func (m move) act(Dirs) error {
	if err := os.Rename(m.from, m.to); err != nil {
		return fmt.Errorf("moving the files of Pods: %w", err)
	}
	return nil
}

func (p prune) act(Dirs) error {
	for _, dir := range p.dirs {
		if err := removeFile(filepath.Join(dir, ownerFile)); err != nil {
			return err
		}
		_ = os.Remove(dir) // it may be a mount of the user's
	}
	return nil
}

func (b bind) act(d Dirs) error {
	// With what is mounted below. Both are shared, so that a mount at one appears at the other.
	if err := unix.Mount(b.from, d.Root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mounting %s, which has the files of Pods and lies on another file system: %w", b.from, err)
	}
	return nil
}

func (point) act(d Dirs) error {
	if target, err := os.Readlink(d.Link()); err == nil && target == d.Root {
		return nil
	}
	next := d.Link() + ".next"
	_ = os.Remove(next) // of a start that was killed
	if err := os.Symlink(d.Root, next); err != nil {
		return fmt.Errorf("linking the root directory: %w", err)
	}
	err := os.Rename(next, d.Link())
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) {
		return removeFile(next) // an empty mount of the user's is there, and stays
	}
	if err != nil {
		return fmt.Errorf("linking the root directory: %w", err)
	}
	return nil
}

// InUse are the directories that have files of this node: one, or two if a move was interrupted or
// one is mounted at the other. Root is the first, if it is this node's.
func (d Dirs) InUse() []string {
	var dirs []string
	if owner, _ := readOwner(d.Root); owner != "" && same(owner, d.Data) {
		dirs = append(dirs, d.Root)
	}
	if former := d.former(); former != "" {
		dirs = append(dirs, former)
	} else if d.ownsLink() && !slices.Contains(dirs, d.Link()) {
		dirs = append(dirs, d.Link())
	}
	return dirs
}

// ownsLink reports whether DataDir/kubelet is the directory with the files.
func (d Dirs) ownsLink() bool {
	info, err := os.Lstat(d.Link())
	return err == nil && info.IsDir()
}

// Unmount unmounts everything below the directories in use, and Root itself if it is a bind mount
// that Prepare made.
func (d Dirs) Unmount() error {
	var errs []error
	for _, dir := range d.InUse() {
		errs = append(errs, mounts.UnmountBelow(dir))
	}
	if d.bound() {
		if err := mounts.Unmount(d.Root); err != nil {
			errs = append(errs, fmt.Errorf("unmounting %s: %w", d.Root, err))
		}
	}
	return errors.Join(errs...)
}

// bound reports whether Root is a bind mount of the directory that DataDir/kubelet leads to.
func (d Dirs) bound() bool {
	files, err := filepath.EvalSymlinks(d.Link())
	root := resolved(d.Root)
	mounted, mountErr := mountinfo.Mounted(root)
	return err == nil && mountErr == nil && files != root && mounted && same(files, root)
}

// Remove removes what the node agent keeps in the directories in use, after Unmount. It removes
// nothing through a mount that is still there. What others keep in a root directory stays; in the
// data directory there is nothing of others.
func (d Dirs) Remove() error {
	if d.bound() {
		return fmt.Errorf("removing %s: it is still mounted; unmount it first", d.Root)
	}
	var errs []error
	for _, dir := range d.InUse() {
		if d.ownsLink() && same(dir, d.Link()) {
			errs = append(errs, mounts.RemoveTree(dir))
			continue
		}
		for _, path := range entriesIn(dir) {
			errs = append(errs, mounts.RemoveTree(path))
		}
		_ = os.Remove(dir) // others may keep something there, or it is a mount of their own
	}
	if d.linked() {
		errs = append(errs, removeFile(d.Link()))
	}
	return errors.Join(errs...)
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", path, err)
	}
	return nil
}
