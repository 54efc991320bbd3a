package mounter

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	containerdmount "github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"k8s.io/kubernetes/pkg/volume/util/subpath"
	mount "k8s.io/mount-utils"
	"k8s.io/utils/ptr"

	"flyball.dev/internal/mounts"
)

// Tmpfs mounts a file system in memory at dir unless one is mounted already. size is in bytes;
// 0 is the kernel's default, half of the memory. All files that are made in there belong to the
// group, if there is one.
func Tmpfs(dir string, size int64, group *int64) error {
	if mounted, err := mountinfo.Mounted(dir); err != nil || mounted {
		return err
	}
	options := "mode=1777"
	if group != nil {
		options = fmt.Sprintf("mode=3777,gid=%d", *group)
	}
	if size > 0 {
		options += fmt.Sprintf(",size=%d", size)
	}
	// Content that is in memory on purpose must not reach the disk by way of swap. Kernels before
	// 6.3 do not know the option.
	err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options+",noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options)
	}
	if err != nil {
		return fmt.Errorf("mounting a file system in memory at %s: %w", dir, err)
	}
	return nil
}

// SubPath binds a path inside a volume to one that no container can exchange for a link afterwards
// (CVE-2017-1002101), and makes the directory if it is missing. Path of the argument is relative to
// VolumePath.
func SubPath(sub subpath.Subpath) (string, error) {
	host := filepath.Join(sub.VolumePath, sub.Path)
	sp := subpath.New(syscallMounter{})
	if _, err := os.Stat(host); errors.Is(err, fs.ErrNotExist) {
		info, err := os.Stat(sub.VolumePath)
		if err != nil {
			return "", err
		}
		// With the volume's permissions: a group that may write to it may write there too.
		if err := sp.SafeMakeDir(sub.Path, sub.VolumePath, info.Mode()); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
	}
	sub.Path = host
	path, _, err := sp.PrepareSafeSubpath(sub)
	return path, err
}

// bindOptions are those of a single mount rather than of its file system.
var bindOptions = map[string]uintptr{
	"rw": 0, "ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
}

// Bind shows a directory at another path, unless something is mounted there.
func Bind(source, target string, options []string) error {
	var flags uintptr
	for _, o := range options {
		flag, ok := bindOptions[o]
		if !ok {
			return fmt.Errorf("binding %s to %s: a directory cannot have the mount option %q", source, target, o)
		}
		flags |= flag
	}
	mounted, err := mountinfo.Mounted(target)
	if err == nil && !mounted {
		err = unix.Mount(source, target, "", unix.MS_BIND, "")
	}
	if err == nil && flags != 0 { // the kernel takes them only from a second call, which sets all flags
		var fs unix.Statfs_t
		if err = unix.Statfs(target, &fs); err == nil {
			flags |= uintptr(fs.Flags) & (unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
			err = unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|flags, "")
		}
	}
	if err != nil {
		return fmt.Errorf("binding %s to %s: %w", source, target, err)
	}
	return nil
}

// superblocks are how to know file systems by their first blocks.
var superblocks = []struct {
	fsType, magic string
	offset        int64
}{{"ext4", "\x53\xef", 0x438}, {"xfs", "XFSB", 0}, {"btrfs", "_BHRfS_M", 0x10040}}

// Device mounts the file system that a block device has, unless something is mounted there.
// fsType, if it is neither nil nor empty, is what it should be.
func Device(device, dir string, fsType *string, options []string) error {
	if mounted, err := mountinfo.Mounted(dir); err != nil || mounted {
		return err
	}
	f, err := os.Open(device)
	if err != nil {
		return fmt.Errorf("mounting a block device: %w", err)
	}
	defer f.Close()
	found := ""
	for _, s := range superblocks {
		magic := make([]byte, len(s.magic))
		if _, err := f.ReadAt(magic, s.offset); err == nil && string(magic) == s.magic {
			found = s.fsType
		}
	}
	if found == "" {
		return fmt.Errorf("%s has no file system (ext4, xfs or btrfs): the node does not format devices; "+
			"format it first, for example with mkfs.ext4", device)
	}
	// The driver of ext4 mounts its predecessors too.
	if want := cmp.Or(ptr.Deref(fsType, ""), found); strings.TrimRight(want, "234") != strings.TrimRight(found, "4") {
		return fmt.Errorf("%s has %s, and not %s", device, found, want)
	}
	m := containerdmount.Mount{Type: found, Source: device, Options: options}
	if err := m.Mount(dir); err != nil {
		return fmt.Errorf("mounting %s as %s: %w", device, found, err)
	}
	return nil
}

// syscallMounter has the methods of mount-utils' Interface that the subPath library uses, without
// executing programs of the host. Other methods panic.
type syscallMounter struct{ mount.Interface }

// IsMountPoint implements mount.Interface.
func (syscallMounter) IsMountPoint(path string) (bool, error) { return mountinfo.Mounted(path) }

// Unmount implements mount.Interface.
func (syscallMounter) Unmount(path string) error { return mounts.Unmount(path) }

// MountSensitiveWithoutSystemdWithMountFlags implements mount.Interface.
func (syscallMounter) MountSensitiveWithoutSystemdWithMountFlags(source, target, _ string, _, _, _ []string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding the subPath: %w", err)
	}
	return nil
}
