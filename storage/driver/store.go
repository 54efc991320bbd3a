//go:build linux

package driver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flyball.dev/internal/atomicfile"
	"flyball.dev/internal/mounts"
)

const (
	volumes, snapshots = "volumes", "snapshots"
	unfinished         = "." // prefix of folders
	metadata           = "volume.json"
)

var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

func load(path string) (*Volume, error) {
	data, err := os.ReadFile(filepath.Join(path, metadata))
	if err != nil {
		return nil, err
	}
	v := &Volume{Path: path}
	if err := json.Unmarshal(data, v); err != nil {
		return nil, fmt.Errorf("reading %s: %w", filepath.Join(path, metadata), err)
	}
	return v, nil
}

// save survives a loss of power.
func (v *Volume) save() error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding: %w", err)
	}
	return atomicfile.Write(filepath.Join(v.Path, metadata), data, 0o600)
}

// note is for unfinished volumes, which do not survive the process.
func (v *Volume) note() error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding: %w", err)
	}
	return os.WriteFile(filepath.Join(v.Path, metadata), data, 0o600)
}

// find returns a volume or snapshot, or the status NotFound.
func (d *Driver) find(folder, id string) (*Volume, error) {
	if validID.MatchString(id) {
		for _, base := range d.bases() {
			v, err := load(filepath.Join(base, folder, id))
			if !errors.Is(err, fs.ErrNotExist) {
				return v, err
			}
		}
	}
	return nil, status.Errorf(codes.NotFound, "node %s has no %s %q", d.config.NodeName, strings.TrimSuffix(folder, "s"), id)
}

// list returns all volumes or snapshots in the order of their ids. With prefix unfinished it returns
// those that are being made or removed.
func (d *Driver) list(folder, prefix string) ([]*Volume, error) {
	var found []*Volume
	for _, base := range d.bases() {
		entries, err := os.ReadDir(filepath.Join(base, folder))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("listing the %s: %w", folder, err)
		}
		for _, entry := range entries {
			if strings.HasPrefix(entry.Name(), unfinished) != (prefix == unfinished) {
				continue
			}
			v, err := load(filepath.Join(base, folder, entry.Name()))
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile, or not begun
			} else if err != nil {
				return nil, err
			}
			if v.Used, err = d.used(v); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			found = append(found, v)
		}
	}
	slices.SortFunc(found, func(a, b *Volume) int { return strings.Compare(a.ID, b.ID) })
	return found, nil
}

// used returns how many bytes of the disk a volume takes, with the blocks that it shares.
func (d *Driver) used(v *Volume) (int64, error) {
	if v.Kind == directory {
		if v.Project == 0 {
			return 0, nil
		}
		return d.quota.used(v.Path, v.Project)
	}
	var stat unix.Stat_t
	if err := unix.Stat(v.Image(), &stat); err != nil {
		return 0, fmt.Errorf("reading the size of %s: %w", v.Image(), err)
	}
	return stat.Blocks * 512, nil
}

// begin makes the unfinished folder of a volume after checking that the disk has room for it.
func (d *Driver) begin(base, folder string, v *Volume) error {
	d.room.Lock()
	defer d.room.Unlock()
	v.Path = filepath.Join(base, folder, unfinished+v.ID)
	if err := d.checkRoom(base, v.Needs+v.Shared); err != nil {
		return err
	}
	if v.Kind == directory && folder == volumes {
		var err error
		if v.Project, err = d.unusedProject(); err != nil {
			return err
		}
	}
	if err := mounts.RemoveTree(v.Path); err != nil {
		return err
	}
	if err := os.MkdirAll(v.Path, 0o700); err != nil {
		return fmt.Errorf("making the folder of a volume: %w", err)
	}
	return v.note()
}

// finish makes a volume visible under its name. From then on it survives everything.
func (v *Volume) finish() error {
	if err := v.save(); err != nil {
		return err
	}
	final := filepath.Join(filepath.Dir(v.Path), v.ID)
	if err := os.Rename(v.Path, final); err != nil {
		return fmt.Errorf("finishing a volume: %w", err)
	}
	v.Path = final
	return atomicfile.SyncDir(filepath.Dir(final))
}

// remove removes a volume or snapshot, in a way that a killed process leaves it unfinished.
func (d *Driver) remove(v *Volume) error {
	hidden := filepath.Join(filepath.Dir(v.Path), unfinished+v.ID)
	if v.Path != hidden {
		if err := mounts.RemoveTree(hidden); err != nil {
			return err
		}
		if err := os.Rename(v.Path, hidden); err != nil {
			return fmt.Errorf("removing: %w", err)
		}
		if err := atomicfile.SyncDir(filepath.Dir(hidden)); err != nil {
			return err
		}
	}
	if v.Project != 0 {
		if err := d.quota.limit(hidden, v.Project, 0); err != nil {
			return err
		}
	}
	return mounts.RemoveTree(hidden)
}

// removeUnfinished removes what a killed process left. Nothing may be in work.
func (d *Driver) removeUnfinished() error {
	var errs []error
	for _, base := range d.bases() {
		for _, folder := range []string{volumes, snapshots} {
			paths, _ := filepath.Glob(filepath.Join(base, folder, unfinished+"*")) // fails for bad patterns only
			for _, path := range paths {
				if v, err := load(path); err == nil {
					errs = append(errs, d.remove(v))
				} else {
					errs = append(errs, mounts.RemoveTree(path))
				}
			}
		}
	}
	return errors.Join(errs...)
}
