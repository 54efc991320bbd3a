//go:build linux

package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	continuity "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flyball.dev/internal/loop"
	"flyball.dev/internal/mounts"
	"flyball.dev/internal/sparse"
	"flyball.dev/internal/xfs"
)

// maxFrozen is how long the writes of Pods may wait for a copy.
const maxFrozen = 30 * time.Second

// fill gives an unfinished volume its content: a copy of a source, or nothing.
func (d *Driver) fill(ctx context.Context, v, source *Volume) error {
	if v.Kind == directory {
		return d.fillDirectory(v, source)
	}
	file, err := os.OpenFile(v.Image(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("making an image: %w", err)
	}
	defer file.Close()
	if source != nil {
		if err := d.copyImage(ctx, file, v, source); err != nil {
			return fmt.Errorf("copying %s: %w", source.ID, err)
		}
		info, err := file.Stat()
		if err != nil {
			return fmt.Errorf("reading the size of a copy: %w", err)
		}
		v.Size = max(v.Size, info.Size()) // the source may have been expanded meanwhile
	}
	if err := extend(file, v); err != nil {
		return err
	}
	if source == nil && !v.Block {
		if err := xfs.Format(file, v.Size); err != nil {
			return fmt.Errorf("formatting an image: %w", err)
		}
	}
	return file.Sync()
}

// extend gives an image the size of its volume.
func extend(file *os.File, v *Volume) error {
	err := sparse.Extend(file, v.Size, !v.Sparse)
	if errors.Is(err, errors.ErrUnsupported) {
		return status.Errorf(codes.FailedPrecondition, "%v; set the parameter %q of the StorageClass to %q", err, ParameterAllocation, asWritten)
	}
	return err
}

func (d *Driver) fillDirectory(v, source *Volume) error {
	if err := os.Mkdir(v.Data(), 0o700); err != nil {
		return fmt.Errorf("making the directory of a volume: %w", err)
	}
	if v.Project != 0 {
		if err := errors.Join(d.quota.assign(v.Data(), v.Project), d.quota.limit(v.Path, v.Project, v.Size)); err != nil {
			return err
		}
	}
	if source != nil {
		if err := continuity.CopyDir(v.Data(), source.Data()); err != nil {
			return fmt.Errorf("copying %s: %w", source.ID, err)
		}
		file, err := os.Open(v.Data())
		if err != nil {
			return err
		}
		defer file.Close()
		if v.Project == 0 {
			v.Needs = 0 // a snapshot: it has taken everything that it takes
		}
		return unix.Syncfs(int(file.Fd()))
	}
	return os.Chmod(v.Data(), 0o777)
}

// copyImage makes file, the image of v, equal to that of the source. Most of a long copy happens
// while Pods write to the source, start and end.
func (d *Driver) copyImage(ctx context.Context, file *os.File, v, source *Volume) error {
	in, err := os.Open(source.Image())
	if err != nil {
		return err
	}
	defer in.Close()
	err = sparse.Clone(file, in)
	shared := err == nil
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if !shared {
		if err := errors.Join(source.copyable(), sparse.Copy(ctx, file, in), file.Sync()); err != nil {
			return err
		}
	}
	if filepath.Base(filepath.Dir(source.Path)) == volumes { // snapshots do not change
		unlock, err := d.locks.lock(ctx, source.ID)
		if err != nil {
			return err
		}
		defer unlock()
		if err := source.copyChanges(ctx, file, in, shared); err != nil {
			return err
		}
	}
	if shared {
		return d.reserveShared(v, source)
	}
	return nil
}

// copyable refuses what changes while it is copied, and cannot be stopped from it.
func (v *Volume) copyable() error {
	if busy, err := v.busy(); err != nil || !busy || !v.Block {
		return err
	}
	return status.Errorf(codes.FailedPrecondition,
		"volume %s is a device that a Pod uses, and the file system of %s cannot share blocks; copy it when no Pod uses it", v.ID, v.base())
}

// copyChanges copies what has changed in a volume, which is locked, since it was copied.
func (v *Volume) copyChanges(ctx context.Context, out, in *os.File, shared bool) error {
	if shared {
		return frozen(v, func() error { return sparse.Clone(out, in) })
	}
	if err := v.copyable(); err != nil {
		return err
	}
	busy, err := v.busy()
	if err != nil {
		return err
	}
	if busy {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, maxFrozen)
		defer cancel()
	}
	err = frozen(v, func() error { return sparse.Copy(ctx, out, in) })
	if errors.Is(err, context.DeadlineExceeded) {
		return status.Errorf(codes.FailedPrecondition,
			"copying volume %s would stop the writes of its Pod for more than %v, as the file system of %s cannot share blocks; copy it when no Pod uses it",
			v.ID, maxFrozen, v.base())
	}
	return err
}

// reserveShared keeps room for the blocks that two images share until one of them is rewritten.
func (d *Driver) reserveShared(v, source *Volume) error {
	d.room.Lock()
	defer d.room.Unlock()
	used, err := d.used(source)
	if err == nil {
		err = d.checkRoom(v.base(), used)
	}
	if err != nil {
		return err
	}
	v.Shared = used
	return v.note()
}

// mounts returns where the content of a volume is mounted, in the order of mounting.
func (v *Volume) mounts() ([]string, error) {
	path := v.Data()
	if v.Kind == image {
		var err error
		if path, err = loop.Find(v.Image()); path == "" {
			return nil, err
		}
	}
	return mounts.Of(path)
}

// busy says whether a volume is staged. Copies of the mount table, which some container of the host
// may have, do not count: they may exist for long, and nobody writes there.
func (v *Volume) busy() (bool, error) {
	if v.Block {
		device, err := loop.Find(v.Image())
		return device != "", err
	}
	points, err := v.mounts()
	return len(points) > 0, err
}

// frozen calls do while nobody can write to the file system of a volume.
func frozen(v *Volume, do func() error) error {
	points, err := v.mounts()
	if err != nil {
		return err
	}
	if v.Block || len(points) == 0 {
		return do()
	}
	return xfs.Frozen(points[0], do)
}

// thaw undoes what a process was killed in.
func (v *Volume) thaw() error {
	if v.Kind != image || v.Block {
		return nil
	}
	points, err := v.mounts()
	if err != nil || len(points) == 0 {
		return err
	}
	return xfs.Thaw(points[0])
}
