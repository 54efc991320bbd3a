//go:build linux

package checks

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/prometheus/procfs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flyball.dev/host/rootdir"
)

// Observe reads the host. What it cannot read stays empty, and fails the check that needs it.
func Observe(w Want) Host {
	h := Host{
		EUID: os.Geteuid(), Capabilities: effectiveCapabilities(), Ports: map[int]Listener{},
		Disk: observeDisk(w.DataDir),
	}
	h.CgroupVersion, h.Controllers = observeCgroups()
	h.Overlay = tryOverlay()
	for _, port := range w.Ports {
		if l, used := listener(port); used {
			h.Ports[port] = l
		}
	}
	h.Addresses, h.Routes = observeAddresses(), observeRoutes()
	if w.RootDir != "" {
		h.RootDisk, h.RootDir = observeRootDir(w)
	}
	for _, f := range w.Files {
		if _, err := os.Stat(f); err != nil {
			h.MissingFiles = append(h.MissingFiles, f)
		}
	}
	return h
}

func effectiveCapabilities() uint64 {
	self, _ := procfs.Self()
	status, _ := self.NewStatus()
	return status.CapEff
}

// observeCgroups returns the version that /sys/fs/cgroup offers, and the controllers. A host with
// v1 controllers and an empty v2 hierarchy beside them (hybrid) counts as v1.
func observeCgroups() (int, []string) {
	const root = "/sys/fs/cgroup"
	var fs unix.Statfs_t
	if unix.Statfs(root, &fs) != nil {
		return 0, nil
	}
	if fs.Type == unix.CGROUP2_SUPER_MAGIC {
		data, _ := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
		return 2, strings.Fields(string(data))
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	return cgroupsV1(string(mounts), func(point string) bool {
		// What is mounted may be hidden by something mounted over it.
		return unix.Statfs(point, &fs) == nil && fs.Type == unix.CGROUP_SUPER_MAGIC
	})
}

func cgroupsV1(mounts string, visible func(point string) bool) (int, []string) {
	var controllers []string
	for line := range strings.Lines(mounts) {
		if f := strings.Fields(line); len(f) > 3 && f[2] == "cgroup" && visible(f[1]) {
			controllers = append(controllers, strings.Split(f[3], ",")...)
		}
	}
	if len(controllers) == 0 {
		return 0, nil
	}
	return 1, controllers
}

// tryOverlay mounts an overlay in a mount namespace of its own. Trying also makes the kernel load
// the module.
func tryOverlay() error {
	dir, err := os.MkdirTemp("", "flyball-check")
	if err != nil {
		return fmt.Errorf("creating a directory to mount an overlay in: %w", err)
	}
	defer os.RemoveAll(dir)
	tried := make(chan error)
	go func() {
		// The thread is not unlocked: it ends with the goroutine, and its mount namespace with it.
		runtime.LockOSThread()
		tried <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
				return fmt.Errorf("creating a mount namespace: %w", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return fmt.Errorf("making mounts private: %w", err)
			}
			// The upper directory must not lie on an overlay, as /tmp in a container does.
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
				return fmt.Errorf("mounting a tmpfs: %w", err)
			}
			for _, d := range []string{"lower", "upper", "work", "merged"} {
				if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
					return err
				}
			}
			options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
			if err := unix.Mount("overlay", filepath.Join(dir, "merged"), "overlay", 0, options); err != nil {
				return fmt.Errorf("mounting an overlay: %w", err)
			}
			return nil
		}()
	}()
	return <-tried
}

func observeDisk(dir string) Disk {
	existing := dir
	for {
		info, err := os.Stat(existing)
		if err == nil && !info.IsDir() {
			return Disk{WriteError: fmt.Errorf("%s is not a directory", existing)}
		}
		if err == nil {
			break
		}
		if existing == "/" || !errors.Is(err, os.ErrNotExist) {
			return Disk{WriteError: err}
		}
		existing = filepath.Dir(existing)
	}
	if err := unix.Access(existing, unix.W_OK); err != nil {
		return Disk{WriteError: fmt.Errorf("%s cannot be written to: %w", existing, err)}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(existing, &fs); err != nil {
		return Disk{WriteError: fmt.Errorf("reading the file system of %s: %w", existing, err)}
	}
	return Disk{FreeBytes: fs.Bavail * uint64(fs.Bsize), FreeInodes: fs.Ffree, Inodes: fs.Files}
}

func observeRootDir(w Want) (Disk, Obstacle) {
	where, err := rootdir.Dirs{Root: w.RootDir, Data: w.DataDir}.Check()
	if err == nil {
		return observeDisk(where), Obstacle{}
	}
	if taken, is := errors.AsType[*rootdir.TakenError](err); is {
		return Disk{}, Obstacle{taken.Detail, taken.Remedy}
	}
	return Disk{}, Obstacle{err.Error(), "choose another directory with --root-dir"}
}

func observeAddresses() []Address {
	interfaces, _ := net.Interfaces()
	var out []Address
	for _, i := range interfaces {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				out = append(out, Address{Interface: i.Name, Prefix: prefix})
			}
		}
	}
	return out
}

func observeRoutes() []Route {
	routes, _ := netlink.RouteList(nil, netlink.FAMILY_V4)
	var out []Route
	for _, r := range routes {
		out = append(out, routeOf(r))
	}
	return out
}

// routeOf reads an IPv4 route. Of several interfaces that it leads to, it has the first.
func routeOf(r netlink.Route) Route {
	out := Route{Prefix: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
	if r.Dst != nil {
		out.Prefix, _ = netip.ParsePrefix(r.Dst.String())
	}
	if len(r.MultiPath) > 0 {
		r.LinkIndex = r.MultiPath[0].LinkIndex
	}
	if link, err := net.InterfaceByIndex(r.LinkIndex); err == nil && r.Type == unix.RTN_UNICAST {
		out.Interface = link.Name
	}
	return out
}

// listenState is TCP_LISTEN of the kernel's tcp_states.h.
const listenState = 10

// listener finds the process that listens on a TCP port, in this network namespace.
func listener(port int) (Listener, bool) {
	fs, _ := procfs.NewDefaultFS()
	tcp, _ := fs.NetTCP()   //nolint:staticcheck // one reading of two small files; no second netlink library for it
	tcp6, _ := fs.NetTCP6() //nolint:staticcheck // as above
	for _, socket := range append(tcp, tcp6...) {
		if socket.St == listenState && socket.LocalPort == uint64(port) {
			return socketOwner(fs, socket.Inode), true
		}
	}
	return Listener{}, false
}

func socketOwner(fs procfs.FS, inode uint64) Listener {
	processes, _ := fs.AllProcs()
	for _, p := range processes {
		if targets, _ := p.FileDescriptorTargets(); slices.Contains(targets, fmt.Sprintf("socket:[%d]", inode)) {
			name, err := p.Comm()
			if err != nil {
				name = "another process"
			}
			return Listener{PID: p.PID, Name: name}
		}
	}
	return Listener{}
}
