//go:build linux

package cadvisor

import (
	"os"

	"github.com/google/cadvisor/lib/machine"
	info "github.com/google/cadvisor/lib/model"
	"github.com/google/cadvisor/lib/utils/sysfs"
	"github.com/google/cadvisor/lib/utils/sysinfo"
)

// hostInfo is what does not change while the host runs, but for its devices.
type hostInfo struct {
	info.MachineInfo

	version info.VersionInfo
}

func newHostInfo(cfg Config) *hostInfo {
	h := &hostInfo{}
	h.version.KernelVersion, h.version.ContainerOsVersion = cfg.System.KernelVersion, cfg.System.OSImage
	h.NumCores, h.MemoryCapacity = int(cfg.Capacity.Cpu().Value()), uint64(cfg.Capacity.Memory().Value())
	if swap := cfg.System.Swap; swap != nil && swap.Capacity != nil {
		h.SwapCapacity = uint64(*swap.Capacity)
	}
	if cpus, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		h.NumPhysicalCores, h.NumSockets = machine.GetPhysicalCores(cpus), machine.GetSockets(cpus)
	}
	h.MachineID, h.BootID, h.SystemUUID = cfg.System.MachineID, cfg.System.BootID, cfg.System.SystemUUID
	return h
}

// withDevices is a copy with the present block devices; scrapes are concurrent. A volume may attach
// a device long after the agent started, and a device number may get another name.
func (h *hostInfo) withDevices() *hostInfo {
	now := *h
	now.DiskMap, _ = sysinfo.GetBlockDeviceInfo(sysfs.NewRealSysFs()) // without it devices have no names
	return &now
}

func (h *hostInfo) GetMachineInfo() (*info.MachineInfo, error) { return &h.MachineInfo, nil }

func (h *hostInfo) GetVersionInfo() (*info.VersionInfo, error) { return &h.version, nil }
