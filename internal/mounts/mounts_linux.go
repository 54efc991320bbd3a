package mounts

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// RemoveAll unmounts everything below dir and then deletes it. It deletes nothing as long as anything
// is mounted: files below a mount belong to
// somebody else.
func RemoveAll(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	mounts, err := Below(dir)
	if err != nil {
		return err
	}
	// The table is in the order of mounting; what was mounted last goes first.
	for _, path := range slices.Backward(mounts) {
		if err := Unmount(path); err != nil {
			return fmt.Errorf("unmounting %s: %w", path, err)
		}
	}
	if len(mounts) > 0 {
		if mounts, err = Below(dir); err != nil {
			return err
		}
	}
	if len(mounts) > 0 {
		return fmt.Errorf("removing %s: %s is still mounted", dir, mounts[0])
	}
	return RemoveTree(dir)
}

// Below returns the mount points at or below a directory, without links in its path, in the order of mounting. It
// reads the mount table, with moby's reader: that of mount-utils leaves spaces in paths
// escaped, and a container may mount at any path.
func Below(dir string) ([]string, error) {
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil, fmt.Errorf("reading the mount table: %w", err)
	}
	var paths []string
	for _, info := range infos {
		paths = append(paths, info.Mountpoint)
	}
	return paths, nil
}

// Unmount unmounts a path, if anything is mounted there. If a process of ours has a file open in there, the mount is detached and
// vanishes when the file is closed.
func Unmount(path string) error {
	err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		// Not mounted any more, for example because it was unmounted with its parent.
		return nil
	}
	return err
}

// RemoveTree deletes a directory. It follows no link, and stops at a directory that is on another
// mount than the first, even if the mount table did not list it.
func RemoveTree(path string) error {
	if err := removeAt(unix.AT_FDCWD, path, path, 0); err != nil {
		return fmt.Errorf("removing %s: %w", path, err)
	}
	return nil
}

// removeAt deletes name in the open directory parent. mount is that of the first directory.
func removeAt(parent int, name, path string, mount uint64) error {
	err := unix.Unlinkat(parent, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	} else if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return &os.PathError{Op: "unlinkat", Path: path, Err: err}
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "openat", Path: path, Err: err}
	}
	dir := os.NewFile(uintptr(fd), path) //nolint:gosec // a descriptor is not negative
	defer dir.Close()
	on, err := mountOf(fd, path)
	if err != nil {
		return err
	}
	if mount == 0 {
		mount = on
	} else if on != mount {
		return fmt.Errorf("%s is still mounted", path)
	}
	for {
		// From the start again: what was deleted is gone.
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
		names, err := dir.Readdirnames(1024)
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		for _, name := range names {
			if err := removeAt(fd, name, filepath.Join(path, name), mount); err != nil {
				return err
			}
		}
	}
	if err := unix.Unlinkat(parent, name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "unlinkat", Path: path, Err: err}
	}
	return nil
}

// mountOf identifies the mount of an open file; before Linux 5.8 only its file system.
func mountOf(fd int, path string) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return 0, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		return st.Mnt_id, nil
	}
	return unix.Mkdev(st.Dev_major, st.Dev_minor), nil
}
