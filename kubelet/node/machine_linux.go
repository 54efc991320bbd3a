package node

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-base/version"
)

func readMachine(rootDir string) (machine, error) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return machine{}, fmt.Errorf("opening /proc: %w", err)
	}
	memory, err := proc.Meminfo()
	if err != nil {
		return machine{}, fmt.Errorf("reading /proc/meminfo: %w", err)
	}
	stat, err := proc.Stat()
	if err != nil {
		return machine{}, fmt.Errorf("reading /proc/stat: %w", err)
	}
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return machine{}, fmt.Errorf("asking for the kernel's version: %w", err)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(rootDir, &disk); err != nil {
		return machine{}, fmt.Errorf("measuring the file system of %s: %w", rootDir, err)
	}
	return machine{
		cpus:       len(stat.CPU),
		memory:     bytesOf(memory.MemTotalBytes),
		swap:       bytesOf(memory.SwapTotalBytes),
		disk:       disk.Blocks * uint64(disk.Bsize),
		hugepages:  hugepages("/sys/kernel/mm/hugepages"),
		machineID:  firstLine("/etc/machine-id", "/var/lib/dbus/machine-id"),
		systemUUID: firstLine("/sys/class/dmi/id/product_uuid", "/proc/device-tree/vm,uuid", "/etc/machine-id"),
		boot:       firstLine("/proc/sys/kernel/random/boot_id"),
		kernel:     unix.ByteSliceToString(uname.Release[:]),
		osImage:    osImage("/etc/os-release", "/usr/lib/os-release"),
		goos:       runtime.GOOS, goarch: runtime.GOARCH,
		kubelet: version.Get().String(),
	}, nil
}

func bytesOf(n *uint64) uint64 {
	if n == nil {
		return 0
	}
	return *n
}

// readUsage measures what pressure is decided on. A figure that cannot be read
// shows no pressure: the alternative is a node that takes no pods because of a
// missing file.
func readUsage(rootDir string) usage {
	u := usage{memoryAvailable: 1 << 62}
	if proc, err := procfs.NewDefaultFS(); err == nil {
		if m, err := proc.Meminfo(); err == nil {
			// The kernel's own estimate. Upstream counts recently read files as
			// in use, and sees pressure on machines that only read much
			// (kubernetes/kubernetes#43916).
			u.memoryAvailable = bytesOf(m.MemAvailableBytes)
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(rootDir, &fs); err == nil {
		u.disk, u.diskAvailable = fs.Blocks*uint64(fs.Bsize), fs.Bavail*uint64(fs.Bsize)
		u.inode, u.inodesAvailable = fs.Files, fs.Ffree
	}
	return u
}

// hugepages lists how many bytes stand by in pages of each size, by the size as
// resource names spell it: 2Mi, 1Gi.
func hugepages(dir string) map[string]uint64 {
	found := map[string]uint64{}
	entries, _ := filepath.Glob(filepath.Join(dir, "hugepages-*kB"))
	for _, e := range entries {
		kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(e), "hugepages-"), "kB"), 10, 63)
		if err != nil {
			continue
		}
		pages, _ := strconv.ParseUint(firstLine(filepath.Join(e, "nr_hugepages")), 10, 63)
		found[resource.NewQuantity(int64(kb<<10), resource.BinarySI).String()] = pages * kb << 10
	}
	return found
}

// firstLine of the first of the files that has one.
func firstLine(files ...string) string {
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		line, _, _ := strings.Cut(string(b), "\n")
		if line = strings.Trim(line, "\x00 \t"); line != "" {
			return line
		}
	}
	return ""
}

// osImage is the name that the distribution gives itself, see os-release(5).
func osImage(files ...string) string {
	for _, name := range files {
		f, err := os.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "Unknown"
		}
		defer func() { _ = f.Close() }()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if value, ok := strings.CutPrefix(lines.Text(), "PRETTY_NAME="); ok {
				return strings.Trim(value, `"'`)
			}
		}
	}
	return "Linux"
}
