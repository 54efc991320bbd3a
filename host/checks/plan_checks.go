//go:build linux

package checks

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// MinFreeBytes is the least that the file systems of the data directory and of the root directory
// must have free: etcd stops accepting writes on a full disk, images are unpacked, and Pods write.
const MinFreeBytes = 1 << 30

// minFreeInodes is a small image's worth.
const minFreeInodes = 10_000

// Controllers without which limits mean nothing, and those that only some features need.
var (
	requiredControllers = map[int][]string{1: {"cpu", "memory", "pids", "devices"}, 2: {"cpu", "memory", "pids"}}
	optionalControllers = map[int][]string{1: {"cpuset", "cpuacct", "freezer", "blkio"}, 2: {"cpuset", "io"}}
)

// Check decides what the host lacks.
func Check(h Host, w Want) []Finding {
	findings := append([]Finding{root(h)}, capabilities(h)...)
	findings = append(findings, cgroups(h)...)
	findings = append(findings, kernel(h)...)
	findings = append(findings, firewall(h, w)...)
	if w.BundledRuntime {
		findings = append(findings, files(h))
	}
	findings = append(findings, disk("disk", w.DataDir, "--data-dir", h.Disk))
	if w.RootDir != "" {
		findings = append(findings, rootDir(h, w))
	}
	if w.Running {
		return findings
	}
	findings = append(findings, ports(h, w)...)
	return append(findings, ranges(h, w)...)
}

// Missing joins what is required and not there into one error; nil if there is nothing.
func Missing(findings []Finding) error {
	var errs []error
	for _, f := range findings {
		if f.Required && !f.OK {
			errs = append(errs, errors.New(f.String()))
		}
		if f.Name == privileges && !f.OK {
			break // most of the rest fails for this reason alone
		}
	}
	return errors.Join(errs...)
}

// String is the finding in one line, with the remedy.
func (f Finding) String() string {
	line := f.Name + ": " + f.Detail
	if f.Remedy != "" {
		line += "; " + f.Remedy
	}
	return line
}

// Line is String after a mark: ✓ if nothing is missing, ✗ if Flyball cannot start without it, !
// otherwise.
func (f Finding) Line() string {
	mark := "✓"
	switch {
	case !f.OK && f.Required:
		mark = "✗"
	case !f.OK:
		mark = "!"
	}
	return " " + mark + " " + f.String()
}

// privileges is the name of the finding about root.
const privileges = "privileges"

func root(h Host) Finding {
	f := Finding{Name: privileges, Required: true, OK: h.EUID == 0, Detail: "root"}
	if !f.OK {
		f.Detail, f.Remedy = fmt.Sprintf("running as user %d, not as root", h.EUID), "run flyball as root, for example with sudo"
	}
	return f
}

func capabilities(h Host) []Finding {
	if h.EUID != 0 {
		return nil // the one remedy has been named
	}
	has := func(bit uint) bool { return h.Capabilities&(1<<bit) != 0 }
	var findings []Finding
	for _, c := range []struct {
		name string
		bit  uint
	}{{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}} {
		f := Finding{Name: c.name, Required: true, OK: has(c.bit), Detail: "held"}
		if !f.OK {
			f.Detail, f.Remedy = "root does not hold it here", "run flyball outside of a container, or in a privileged one"
		}
		findings = append(findings, f)
	}
	f := Finding{Name: "CAP_SYS_RESOURCE", OK: has(unix.CAP_SYS_RESOURCE), Detail: "held"}
	if !f.OK {
		f.Detail = "not held: the kernel may choose Guaranteed Pods when it is out of memory"
		f.Remedy = "grant CAP_SYS_RESOURCE to let flyball lower oom_score_adj"
	}
	return append(findings, f)
}

func cgroups(h Host) []Finding {
	if h.CgroupVersion == 0 {
		return []Finding{{
			Name: "cgroups", Required: true, Detail: "no cgroup hierarchy is mounted",
			Remedy: "mount cgroup2 at /sys/fs/cgroup, as systemd does",
		}}
	}
	list := func(required bool, names []string) Finding {
		f := Finding{Name: "cgroup controllers", Required: required, OK: true}
		if !required {
			f.Name = "optional cgroup controllers"
		}
		var missing []string
		for _, name := range names {
			if !slices.Contains(h.Controllers, name) {
				missing = append(missing, name)
			}
		}
		f.Detail = fmt.Sprintf("v%d: %s", h.CgroupVersion, strings.Join(names, ", "))
		if len(missing) > 0 {
			f.OK, f.Detail = false, fmt.Sprintf("v%d without %s", h.CgroupVersion, strings.Join(missing, ", "))
			f.Remedy = "enable them on the kernel command line (cgroup_enable=" + strings.Join(missing, " cgroup_enable=") + ") and reboot"
		}
		return f
	}
	return []Finding{list(true, requiredControllers[h.CgroupVersion]), list(false, optionalControllers[h.CgroupVersion])}
}

func kernel(h Host) []Finding {
	features := map[string]error{"overlayfs": h.Overlay}
	maps.Copy(features, h.Kernel)
	var findings []Finding
	for _, name := range slices.Sorted(maps.Keys(features)) {
		f := Finding{Name: "kernel: " + name, Required: true, OK: features[name] == nil, Detail: "works"}
		if !f.OK {
			f.Detail = features[name].Error()
			f.Remedy = "load the kernel module for " + name + ", or boot a kernel that has it (any Debian kernel does)"
			if h.EUID != 0 {
				f.Detail, f.Remedy = "cannot be tried: "+f.Detail, "run as root"
			}
		}
		findings = append(findings, f)
	}
	return findings
}

func files(h Host) Finding {
	f := Finding{Name: "bundled programs", Required: true, OK: len(h.MissingFiles) == 0, Detail: "complete"}
	if !f.OK {
		f.Detail = "missing: " + strings.Join(h.MissingFiles, ", ")
		f.Remedy = "build them with `make build`, or keep them next to the flyball executable"
	}
	return f
}

// rootDir: whose it is comes first, since another one is needed then.
func rootDir(h Host, w Want) Finding {
	const name = "kubelet root directory"
	if h.RootDir.Detail != "" {
		return Finding{Name: name, Required: true, Detail: h.RootDir.Detail, Remedy: h.RootDir.Remedy}
	}
	return disk(name, w.RootDir, "--root-dir", h.RootDisk)
}

// disk checks the file system of a directory that the flag sets.
func disk(name, dir, flag string, d Disk) Finding {
	f := Finding{Name: name, Required: true, OK: true, Detail: fmt.Sprintf("%s has %s free", dir, mebibytes(d.FreeBytes))}
	switch {
	case d.WriteError != nil:
		f.OK, f.Detail = false, d.WriteError.Error()
		f.Remedy = "make " + dir + " writable, or choose another directory with " + flag
	case d.FreeBytes < MinFreeBytes:
		f.OK, f.Detail = false, fmt.Sprintf("the disk of %s is full: %s free, %s needed", dir, mebibytes(d.FreeBytes), mebibytes(MinFreeBytes))
		f.Remedy = "free some space, or choose a directory on another disk with " + flag
	case d.Inodes > 0 && d.FreeInodes < minFreeInodes:
		f.OK, f.Detail = false, fmt.Sprintf("the disk of %s is full: %d inodes free, %d needed", dir, d.FreeInodes, minFreeInodes)
		f.Remedy = "remove files, or choose a directory on another disk with " + flag
	}
	return f
}

func mebibytes(n uint64) string { return fmt.Sprintf("%d MiB", n>>20) }

func ports(h Host, w Want) []Finding {
	var findings []Finding
	for _, use := range slices.Sorted(maps.Keys(w.Ports)) {
		port := w.Ports[use]
		f := Finding{Name: fmt.Sprintf("port %d (%s)", port, use), Required: true, OK: true, Detail: "free"}
		if l, used := h.Ports[port]; used {
			f.OK, f.Detail = false, "in use by a process of another network or user"
			f.Remedy = "stop what listens there, or choose another port in the configuration"
			if l.PID != 0 {
				f.Detail = fmt.Sprintf("in use by %s (pid %d)", l.Name, l.PID)
				f.Remedy = fmt.Sprintf("stop %s, or choose another port in the configuration", l.Name)
			}
		}
		findings = append(findings, f)
	}
	return findings
}

func ranges(h Host, w Want) []Finding {
	var findings []Finding
	for _, name := range slices.Sorted(maps.Keys(w.Ranges)) {
		prefix := w.Ranges[name]
		f := Finding{Name: fmt.Sprintf("%s %s", name, prefix), Required: true, OK: true, Detail: "free"}
		if what := overlap(h, w, prefix); what != "" {
			f.OK, f.Detail = false, "overlaps "+what
			f.Remedy = "choose another " + name + " in the configuration"
		}
		findings = append(findings, f)
	}
	f := Finding{Name: "node address " + w.NodeIP.String(), Required: true, OK: true, Detail: "of this machine"}
	if !slices.ContainsFunc(h.Addresses, func(a Address) bool { return a.Prefix.Addr() == w.NodeIP }) {
		f.OK, f.Detail, f.Remedy = false, "no interface has it", "set nodeIP (--node-ip) to an address of this machine"
	}
	return append(findings, f)
}

// overlap names the host's address or route that lies in the range or around it. The default route
// lies around everything, and a route that leads nowhere is how Flyball itself keeps packets in.
func overlap(h Host, w Want, prefix netip.Prefix) string {
	for _, a := range h.Addresses {
		own := slices.Contains(w.OwnInterfaces, a.Interface) || slices.Contains(w.OwnAddresses, a.Prefix.Addr())
		if a.Prefix.Masked().Overlaps(prefix) && !own {
			return fmt.Sprintf("the address %s of interface %s", a.Prefix, a.Interface)
		}
	}
	for _, r := range h.Routes {
		if r.Prefix.Bits() > 0 && r.Interface != "" && r.Prefix.Overlaps(prefix) && !slices.Contains(w.OwnInterfaces, r.Interface) && !slices.Contains(w.OwnRoutes, r.Prefix) {
			return fmt.Sprintf("the route %s of interface %s", r.Prefix, r.Interface)
		}
	}
	return ""
}
