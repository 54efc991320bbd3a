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

// machineInfo is what does not change while the machine runs, see withDevices.
type machineInfo struct{ info.MachineInfo }

func readMachine() (*machineInfo, error) {
	m := &machineInfo{}
	var err error
	if m.MemoryCapacity, err = machine.GetMachineMemoryCapacity(); err != nil {
		return nil, fmt.Errorf("reading how much memory the machine has: %w", err)
	}
	if m.SwapCapacity, err = machine.GetMachineSwapCapacity(); err != nil {
		return nil, fmt.Errorf("reading how much swap the machine has: %w", err)
	}
	sys := sysfs.NewRealSysFs()
	if proc, err := procfs.NewDefaultFS(); err == nil {
		if stat, err := proc.Stat(); err == nil {
			m.NumCores = len(stat.CPU)
		}
	}
	if m.NumCores == 0 {
		m.NumCores = runtime.NumCPU()
	}
	if cpus, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.NumPhysicalCores, m.NumSockets = machine.GetPhysicalCores(cpus), machine.GetSockets(cpus)
	}
	m.MachineID, m.BootID = line("/etc/machine-id"), line("/proc/sys/kernel/random/boot_id")
	m.SystemUUID, _ = sysinfo.GetSystemUUID(sys)
	return m, nil
}

// withDevices is a copy that knows the block devices of this moment; scrapes run at once. A volume
// brings its device long after the agent began, and a number may come back under another name.
func (m *machineInfo) withDevices() *machineInfo {
	now := *m
	now.DiskMap, _ = sysinfo.GetBlockDeviceInfo(sysfs.NewRealSysFs()) // without it devices have no names
	return &now
}

func line(file string) string {
	raw, _ := os.ReadFile(file)
	return strings.TrimSpace(string(raw))
}

// GetMachineInfo is what the library asks for.
func (m *machineInfo) GetMachineInfo() (*info.MachineInfo, error) { return &m.MachineInfo, nil }

// GetVersionInfo is what the library asks for.
func (m *machineInfo) GetVersionInfo() (*info.VersionInfo, error) {
	return &info.VersionInfo{
		KernelVersion: machine.KernelVersion(), ContainerOsVersion: machine.ContainerOsVersion(),
	}, nil
}

// GetRequestedContainersInfo completes the library's interface; machines have no containers.
func (m *machineInfo) GetRequestedContainersInfo(string, info.RequestOptions) (map[string]*info.ContainerInfo, error) {
	return nil, nil //nolint:nilnil // nothing is asked for
}
