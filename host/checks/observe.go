//go:build linux

package checks

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
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
	for _, f := range w.Files {
		if _, err := os.Stat(f); err != nil {
			h.MissingFiles = append(h.MissingFiles, f)
		}
	}
	return h
}

func effectiveCapabilities() uint64 {
	data, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(data)) {
		if value, found := strings.CutPrefix(line, "CapEff:"); found {
			caps, _ := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			return caps
		}
	}
	return 0
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
	data, _ := os.ReadFile("/proc/net/route")
	return parseRoutes(string(data))
}

// rejectFlag marks a route that leads nowhere (RTF_REJECT).
const rejectFlag = 0x200

// parseRoutes reads /proc/net/route: hexadecimal addresses in the host's byte order.
func parseRoutes(table string) []Route {
	var out []Route
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		dst, err1 := strconv.ParseUint(f[1], 16, 32)
		flags, err2 := strconv.ParseUint(f[3], 16, 32)
		mask, err3 := strconv.ParseUint(f[7], 16, 32)
		if errors.Join(err1, err2, err3) != nil {
			continue // the heading
		}
		ones, _ := net.IPMask(native(uint32(mask))).Size()
		r := Route{Interface: f[0], Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte(native(uint32(dst)))), ones)}
		if flags&rejectFlag != 0 {
			r.Interface = ""
		}
		out = append(out, r)
	}
	return out
}

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// listenState is TCP_LISTEN in /proc/net/tcp.
const listenState = "0A"

// listener finds the process that listens on a TCP port, in this network namespace.
func listener(port int) (Listener, bool) {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, _ := os.ReadFile(table)
		if inode, used := listeningInode(string(data), port); used {
			return socketOwner(inode), true
		}
	}
	return Listener{}, false
}

// listeningInode reads /proc/net/tcp or tcp6.
func listeningInode(table string, port int) (string, bool) {
	want := strings.ToUpper(hex.EncodeToString(binary.BigEndian.AppendUint16(nil, uint16(port))))
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) > 9 && f[3] == listenState && strings.HasSuffix(f[1], ":"+want) {
			return f[9], true
		}
	}
	return "", false
}

func socketOwner(inode string) Listener {
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	i := slices.IndexFunc(fds, func(fd string) bool {
		target, err := os.Readlink(fd)
		return err == nil && target == "socket:["+inode+"]"
	})
	if i < 0 {
		return Listener{}
	}
	pid := strings.Split(fds[i], "/")[2]
	l := Listener{Name: processName("/proc/" + pid)}
	l.PID, _ = strconv.Atoi(pid)
	return l
}

func processName(proc string) string {
	f, err := os.Open(filepath.Join(proc, "comm"))
	if err != nil {
		return "another process"
	}
	defer f.Close()
	scanner := bufio.NewScanner(f)
	scanner.Scan()
	return scanner.Text()
}
