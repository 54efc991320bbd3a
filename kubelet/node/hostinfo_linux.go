package node

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/google/cadvisor/lib/machine"
	"github.com/google/cadvisor/lib/utils/sysfs"
	"github.com/google/cadvisor/lib/utils/sysinfo"
	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-base/version"
	"k8s.io/utils/ptr"
)

// ReadHostInfo reads the capacity and the identity of this host. The capacity for ephemeral storage
// is the size of rootDir's file system; maxPods is the capacity for pods.
func ReadHostInfo(rootDir string, maxPods int) (HostInfo, error) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return HostInfo{}, fmt.Errorf("opening /proc: %w", err)
	}
	memory, err := proc.Meminfo()
	if err != nil {
		return HostInfo{}, fmt.Errorf("reading /proc/meminfo: %w", err)
	}
	stat, err := proc.Stat()
	if err != nil {
		return HostInfo{}, fmt.Errorf("reading /proc/stat: %w", err)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(rootDir, &disk); err != nil {
		return HostInfo{}, fmt.Errorf("measuring the file system of %s: %w", rootDir, err)
	}
	info := HostInfo{
		Capacity: v1.ResourceList{
			v1.ResourceCPU:              *resource.NewMilliQuantity(int64(len(stat.CPU))*1000, resource.DecimalSI),
			v1.ResourceMemory:           bytes(ptr.Deref(memory.MemTotalBytes, 0)),
			v1.ResourceEphemeralStorage: bytes(disk.Blocks * uint64(disk.Bsize)),
			v1.ResourcePods:             *resource.NewQuantity(int64(maxPods), resource.DecimalSI),
		},
		System: v1.NodeSystemInfo{
			MachineID:     firstLine("/etc/machine-id", "/var/lib/dbus/machine-id"),
			BootID:        firstLine("/proc/sys/kernel/random/boot_id"),
			KernelVersion: machine.KernelVersion(), OSImage: machine.ContainerOsVersion(),
			OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH, KubeletVersion: version.Get().String(),
		},
	}
	if info.System.SystemUUID, _ = sysinfo.GetSystemUUID(sysfs.NewRealSysFs()); info.System.SystemUUID == "" {
		info.System.SystemUUID = firstLine("/etc/machine-id")
	}
	if swap := int64(ptr.Deref(memory.SwapTotalBytes, 0)); swap > 0 {
		info.System.Swap = &v1.NodeSwapStatus{Capacity: &swap}
	}
	return info, addHugePages(info.Capacity, "/sys/kernel/mm/hugepages/")
}

// addHugePages adds the preallocated huge pages of each size.
func addHugePages(capacity v1.ResourceList, dir string) error {
	sizes, err := sysinfo.GetHugePagesInfo(sysfs.NewRealSysFs(), dir)
	if err != nil {
		return fmt.Errorf("reading huge pages: %w", err)
	}
	for _, s := range sizes {
		size := bytes(s.PageSize << 10)
		capacity[v1.ResourceName(v1.ResourceHugePagesPrefix+size.String())] = bytes(s.NumPages * s.PageSize << 10)
	}
	return nil
}

func bytes(n uint64) resource.Quantity { return *resource.NewQuantity(int64(n), resource.BinarySI) }

// readUsage measures the resources that pressure conditions report. A figure that cannot be read
// shows no pressure: a missing file must not make the node refuse Pods.
func readUsage(rootDir string) usage {
	u := idle
	if proc, err := procfs.NewDefaultFS(); err == nil {
		if m, err := proc.Meminfo(); err == nil {
			// The kernel's own estimate. Upstream counts recently read files as in use, and sees
			// pressure on hosts that only read much (kubernetes/kubernetes#43916).
			u.memoryAvailable = ptr.Deref(m.MemAvailableBytes, 0)
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(rootDir, &fs); err == nil {
		u.disk, u.diskAvailable = fs.Blocks*uint64(fs.Bsize), fs.Bavail*uint64(fs.Bsize)
		u.inodes, u.inodesAvailable = fs.Files, fs.Ffree
	}
	return u
}

// firstLine returns the first line of the first file that has one.
func firstLine(files ...string) string {
	for _, f := range files {
		b, _ := os.ReadFile(f)
		line, _, _ := strings.Cut(string(b), "\n")
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
	}
	return ""
}
