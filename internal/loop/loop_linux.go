package loop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// Options of a device.
type Options struct {
	// Autoclear detaches the device when nobody has it open any more, and nothing of it is mounted.
	Autoclear bool
	// NoDiscard refuses to punch holes into the image, so that its blocks stay allocated.
	NoDiscard bool
	// Direct keeps the content out of the host's cache, since file systems have their own. The kernel
	// then chooses the size of the device's sectors, which is 512 bytes otherwise.
	Direct   bool
	ReadOnly bool
}

// Attach returns the device of an image, open: the one that the image has already, since two would
// not know of each other's caches, or a new one. It is as large as the image is now.
func Attach(image string, o Options) (*os.File, error) {
	device, err := attached(image)
	if err != nil {
		return nil, err
	}
	if device == nil {
		device, err = mount.SetupLoop(image, mount.LoopParams{Autoclear: o.Autoclear, Readonly: o.ReadOnly, Direct: o.Direct})
		if err != nil {
			return nil, fmt.Errorf("making a loop device of %s: %w", image, err)
		}
	}
	if o.NoDiscard {
		setting := filepath.Join("/sys/block", filepath.Base(device.Name()), "queue/discard_max_bytes")
		if err := os.WriteFile(setting, []byte("0"), 0o600); err != nil {
			device.Close()
			return nil, fmt.Errorf("keeping the blocks of %s allocated: %w", image, err)
		}
	}
	if err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		device.Close()
		return nil, fmt.Errorf("reading the size of %s anew: %w", image, err)
	}
	return device, nil
}

// attached opens the device of an image, if it has one. One that detaches itself may do so until it
// is open.
func attached(image string) (*os.File, error) {
	path, err := Find(image)
	if path == "" {
		return nil, err
	}
	device, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the loop device of %s: %w", image, err)
	}
	if still, err := Find(image); err != nil || still != path {
		device.Close()
		return nil, err
	}
	return device, nil
}

// Find returns the path of the device whose backing file is the image, or "".
func Find(image string) (string, error) {
	var stat unix.Stat_t
	resolved, err := filepath.EvalSymlinks(image)
	if err == nil {
		err = unix.Stat(resolved, &stat)
	}
	if os.IsNotExist(err) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("reading the path of an image: %w", err)
	}
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file") // fails for bad patterns only
	for _, file := range files {
		backing, err := os.ReadFile(file)
		path := filepath.Join("/dev", filepath.Base(filepath.Dir(filepath.Dir(file))))
		// Another host, in a mount namespace of its own, may have another file of this name.
		if err == nil && strings.TrimSuffix(string(backing), "\n") == resolved && backs(stat.Ino, path) {
			return path, nil
		}
	}
	return "", nil
}

func backs(inode uint64, device string) bool {
	file, err := os.Open(device)
	if err != nil {
		return false
	}
	defer file.Close()
	info, err := unix.IoctlLoopGetStatus64(int(file.Fd()))
	return err == nil && info.Inode == inode
}

// Detach frees the device of an image, if it has one; as soon as nobody has it open any more.
func Detach(image string) error {
	device, err := attached(image)
	if device == nil {
		return err
	}
	defer device.Close()
	if err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
		return fmt.Errorf("detaching %s from %s: %w", image, device.Name(), err)
	}
	return nil
}
