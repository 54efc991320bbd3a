//go:build linux

package rootdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/sys/mountinfo"

	"flyball.dev/host/propagation"
)

func observe(d Dirs) (state, error) {
	s := state{dirs: d}
	var err error
	if s.owner, err = readOwner(d.Root); err == nil {
		s.others, err = others(d.Root)
	}
	if err != nil {
		return s, fmt.Errorf("reading the root directory: %w", err)
	}
	s.ours = s.owner != "" && same(s.owner, d.Data)
	if _, err := os.Stat(s.owner); errors.Is(err, fs.ErrNotExist) && len(s.others) == 0 {
		s.owner = "" // the node is gone, and left nothing
	}
	s.bound, s.former = d.bound(), d.former()
	if s.former == "" {
		return s, nil
	}
	mounts, err := mountinfo.GetMounts(nil)
	if err == nil {
		var ours []string // all in the data directory is ours
		if d.linked() {
			ours = entries
		}
		err = s.compare(mounts, s.former, resolved(d.Root), ours)
	}
	if err != nil {
		return s, fmt.Errorf("reading the former root directory: %w", err)
	}
	return s, nil
}

// former is the directory that DataDir/kubelet leads to, if it is another than Root.
func (d Dirs) former() string {
	dir, err := filepath.EvalSymlinks(d.Link())
	if err != nil || same(dir, d.Root) {
		return ""
	}
	// A link leads to a directory of this node, or it is not ours.
	if owner, _ := readOwner(dir); !d.linked() || owner != "" && same(owner, d.Data) {
		return dir
	}
	return ""
}

// linked reports whether DataDir/kubelet is a link.
func (d Dirs) linked() bool {
	info, err := os.Lstat(d.Link())
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// readOwner returns the data directory that dir belongs to; empty if that is not said.
func readOwner(dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, ownerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(data)), err
}

// same reports whether two paths are the same, or lead to the same directory.
func same(a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// others are the entries of dir that drivers do not make. Empty directories, which runtimes make
// for a hostPath, are nobody's.
func others(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range list {
		if slices.Contains(drivers, e.Name()) {
			continue
		}
		if e.IsDir() {
			if below, err := os.ReadDir(filepath.Join(dir, e.Name())); err == nil && len(below) == 0 {
				continue
			}
		}
		names = append(names, e.Name())
	}
	return names, nil
}

// compare finds what brings the entries with these names, or all if there are no names, from one
// directory to another. Directories that both have stay, since containers may have them mounted, and
// get what is in the other.
func (s *state) compare(mounts []*mountinfo.Info, from, to string, names []string) error {
	list, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range list {
		source, target := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		info, err := os.Lstat(target)
		switch {
		case e.Name() == ownerFile || names != nil && !slices.Contains(names, e.Name()):
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
			s.moves = append(s.moves, move{source, target, fixed(mounts, source, target)})
		case err != nil:
			return err
		case e.IsDir() && info.IsDir():
			if err := s.compare(mounts, source, target, nil); err != nil {
				return err
			}
		default:
			s.clashes = append(s.clashes, target)
		}
	}
	s.emptied = append(s.emptied, from)
	return nil
}

// fixed says why the kernel does not rename from to to; empty if it does.
func fixed(mounts []*mountinfo.Info, from, to string) string {
	self, a, b := propagation.Holding(mounts, from), propagation.Holding(mounts, filepath.Dir(from)), propagation.Holding(mounts, filepath.Dir(to))
	switch {
	case self == nil || a == nil || b == nil: // not even / is a mount here, and rename says the rest
	case self.Mountpoint == from:
		return from + " is a mount"
	case a.ID != b.ID:
		return fmt.Sprintf("%s lies on the mount %s, and %s on %s", from, a.Mountpoint, to, b.Mountpoint)
	}
	return ""
}

// resolved is path without links, as the mount table has it, as far as it exists.
func resolved(path string) string {
	if dir, err := filepath.EvalSymlinks(path); err == nil {
		return dir
	}
	return filepath.Join(resolved(filepath.Dir(path)), filepath.Base(path))
}
