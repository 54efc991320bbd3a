//go:build linux

package cadvisor

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/google/cadvisor/lib/machine"
	info "github.com/google/cadvisor/lib/model"
	"github.com/google/cadvisor/lib/utils/sysfs"
	"github.com/google/cadvisor/lib/utils/sysinfo"
	"github.com/prometheus/procfs"
)

// hostInfo is what does not change while the host runs, but for its devices.
type hostInfo struct{ info.MachineInfo }

func readHostInfo() (*hostInfo, error) {
	h := &hostInfo{}
	var err error
	if h.MemoryCapacity, err = machine.GetMachineMemoryCapacity(); err != nil {
		return nil, fmt.Errorf("reading the host's memory: %w", err)
	}
	if h.SwapCapacity, err = machine.GetMachineSwapCapacity(); err != nil {
		return nil, fmt.Errorf("reading the host's swap: %w", err)
	}
	if proc, err := procfs.NewDefaultFS(); err == nil {
		if stat, err := proc.Stat(); err == nil {
			h.NumCores = len(stat.CPU)
		}
	}
	if h.NumCores == 0 {
		h.NumCores = runtime.NumCPU()
	}
	if cpus, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		h.NumPhysicalCores, h.NumSockets = machine.GetPhysicalCores(cpus), machine.GetSockets(cpus)
	}
	h.MachineID, h.BootID = line("/etc/machine-id"), line("/proc/sys/kernel/random/boot_id")
	h.SystemUUID, _ = sysinfo.GetSystemUUID(sysfs.NewRealSysFs())
	return h, nil
}

// withDevices is a copy with the present block devices; scrapes are concurrent. A volume may attach a
// device long after the agent started, and a device number may get another name.
func (h *hostInfo) withDevices() *hostInfo {
	now := *h
	now.DiskMap, _ = sysinfo.GetBlockDeviceInfo(sysfs.NewRealSysFs()) // without it devices have no names
	return &now
}

func line(file string) string {
	raw, _ := os.ReadFile(file)
	return strings.TrimSpace(string(raw))
}

// GetMachineInfo implements the library's interface.
func (h *hostInfo) GetMachineInfo() (*info.MachineInfo, error) { return &h.MachineInfo, nil }

// GetVersionInfo implements the library's interface.
func (h *hostInfo) GetVersionInfo() (*info.VersionInfo, error) {
	return &info.VersionInfo{
		KernelVersion: machine.KernelVersion(), ContainerOsVersion: machine.ContainerOsVersion(),
	}, nil
}
