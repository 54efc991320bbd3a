package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	ipForward         = "/proc/sys/net/ipv4/ip_forward"
	bridgeCallsFilter = "/proc/sys/net/bridge/bridge-nf-call-iptables"
)

// configureKernel makes a router of this host.
func configureKernel() error { return setSysctl(ipForward, "1") }

// enableBridgeNetfilter makes packets between two Pods of one node pass nftables. Without, a reply
// to a Pod that came through a Service goes straight over the bridge, past the translation back.
func enableBridgeNetfilter() error {
	if _, err := os.Stat(bridgeCallsFilter); os.IsNotExist(err) {
		if err := loadModule("br_netfilter"); err != nil {
			return fmt.Errorf("loading the kernel module br_netfilter: %w; Services between Pods of one node need it, "+
				"load it with `modprobe br_netfilter`", err)
		}
	}
	return setSysctl(bridgeCallsFilter, "1")
}

func setSysctl(file, value string) error {
	if old, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(old)) == value {
		return nil // it may be readable alone, as in a container
	}
	if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
		return fmt.Errorf("setting %s: %w", strings.ReplaceAll(strings.TrimPrefix(file, "/proc/sys/"), "/", "."), err)
	}
	return nil
}

// moduleInitCompressed lets the kernel unpack a module's file (Linux 5.17).
const moduleInitCompressed = 4

// loadModule loads a module of the running kernel whose dependencies are loaded already.
func loadModule(name string) error {
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return err
	}
	dir := filepath.Join("/lib/modules", unix.ByteSliceToString(uname.Release[:]), "kernel")
	files, err := filepath.Glob(filepath.Join(dir, "net", "bridge", name+".ko*"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("there is no %s beneath %s", name, dir)
	}
	f, err := os.Open(files[0])
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	flags := 0
	if !strings.HasSuffix(files[0], ".ko") {
		flags = moduleInitCompressed
	}
	if err := unix.FinitModule(int(f.Fd()), "", flags); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}
