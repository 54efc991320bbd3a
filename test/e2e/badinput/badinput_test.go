// Package badinput tests what cannot be started: each ends with one clear message and exit code 1, and leaves nothing.
package badinput

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"flyball.dev/test/e2e/internal/cluster"
)

func TestMain(m *testing.M) { cluster.MainWithout(m) }

// TestRefused has everything that is refused before anything is started.
func TestRefused(t *testing.T) {
	tests := map[string]struct {
		reason string
		// prepare returns arguments of `flyball up` and what the message must say.
		prepare func(t *testing.T) (args, say []string)
		// as changes what the program is run with. Optional.
		as func(t *testing.T, cmd *exec.Cmd)
	}{
		"UnknownField": {
			reason: "A typing error is not a default.",
			prepare: func(t *testing.T) ([]string, []string) {
				return []string{"--config", file(t, "clusterCidr: 10.1.0.0/16\n")}, []string{`line 3: unknown field "clusterCidr"`}
			},
		},
		"InvalidFields": {
			reason: "All errors are told at once.",
			prepare: func(t *testing.T) ([]string, []string) {
				return []string{"--config", file(t, "port: 99999\nnodeName: A_B\n")}, []string{"port", "nodeName"}
			},
		},
		"NoFile": {
			reason: "A file that is not there is not an empty one.",
			prepare: func(*testing.T) ([]string, []string) {
				return []string{"--config", "/nonexistent.yaml"}, []string{"/nonexistent.yaml"}
			},
		},
		"Overlap": {
			reason: "Pods could not reach the host's own network.",
			prepare: func(t *testing.T) ([]string, []string) {
				iface, prefix := hostNetwork(t)
				return []string{"--cluster-cidr", prefix}, []string{"clusterCIDR " + prefix, "overlaps", iface}
			},
		},
		"PortInUse": {
			reason: "The process is named.",
			prepare: func(t *testing.T) ([]string, []string) {
				l, err := net.Listen("tcp", ":0")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { l.Close() })
				port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
				return []string{"--port", port}, []string{"port " + port, "badinput.test", fmt.Sprintf("pid %d", os.Getpid())}
			},
		},
		"DiskFull": {
			reason: "etcd would stop in the middle of its work.",
			prepare: func(t *testing.T) ([]string, []string) {
				return []string{"--data-dir", filepath.Join(tmpfs(t, "size=64m", 0), "data")}, []string{"disk", "full", "64 MiB free"}
			},
		},
		"ReadOnly": {
			reason: "Nothing could be kept.",
			prepare: func(t *testing.T) ([]string, []string) {
				return []string{"--data-dir", filepath.Join(tmpfs(t, "", unix.MS_RDONLY), "data")}, []string{"read-only", "--data-dir"}
			},
		},
		"NotADirectory": {
			reason: "A file stands where data should go.",
			prepare: func(t *testing.T) ([]string, []string) {
				return []string{"--data-dir", file(t, "")}, []string{"is not a directory"}
			},
		},
		"NoRoot": {
			reason:  "Nothing works without root, and nothing but that is said.",
			prepare: func(*testing.T) ([]string, []string) { return nil, []string{"not as root", "sudo"} },
			as: func(_ *testing.T, cmd *exec.Cmd) {
				const nobody = 65534
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			},
		},
		"NoNftables": {
			reason:  "Without the right to change the network, the kernel's packet filter is not there.",
			prepare: func(*testing.T) ([]string, []string) { return nil, []string{"kernel: nf_tables"} },
			as: func(t *testing.T, _ *exec.Cmd) {
				// The child has the bounding set of the thread that starts it. The thread ends with the test.
				runtime.LockOSThread()
				if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_NET_ADMIN, 0, 0, 0); err != nil {
					t.Fatal(err)
				}
			},
		},
		"NoCgroups": {
			reason:  "Nothing could be limited.",
			prepare: func(*testing.T) ([]string, []string) { return nil, []string{"no cgroup hierarchy", "mount cgroup2"} },
			as: func(t *testing.T, _ *exec.Cmd) {
				runtime.LockOSThread()
				err := errors.Join(
					unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_FS),
					unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
					unix.Mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, ""),
				)
				if err != nil {
					t.Fatal(err)
				}
			},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			args, say := tc.prepare(t)
			if !strings.Contains(strings.Join(args, " "), "--data-dir") {
				args = append(args, cluster.Dirs(filepath.Join(t.TempDir(), "data"))...)
			}
			for _, detach := range []bool{true, false} {
				done := make(chan struct{})
				go func() { // some change their thread
					defer close(done)
					refused(t, tc.reason, args, say, detach, tc.as)
				}()
				<-done
			}
			cluster.NothingLeft(t)
		})
	}
}

// refused runs `flyball up` and checks how it fails.
func refused(t *testing.T, reason string, args, say []string, detach bool, as func(*testing.T, *exec.Cmd)) {
	args = append([]string{"up", fmt.Sprintf("--detach=%t", detach)}, args...)
	cmd := exec.CommandContext(t.Context(), cluster.Binary(), args...)
	cmd.Dir = "/"
	var out, message bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &message
	if as != nil {
		as(t, cmd)
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.Is(err, os.ErrPermission):
		t.Log("skipped: another user cannot reach the program under test")
		return
	case !errors.As(err, &exit) || exit.ExitCode() != 1:
		t.Errorf("%s\nflyball %s: %v, want exit code 1\n%s%s", reason, strings.Join(args, " "), err, &out, &message)
		return
	}
	if out.Len() > 0 {
		t.Errorf("%s\nit printed: %s", reason, &out)
	}
	if n := strings.Count(message.String(), "Error: "); n != 1 {
		t.Errorf("%s\nthere are %d messages, want one: %s", reason, n, &message)
	}
	for _, part := range say {
		if !strings.Contains(message.String(), part) {
			t.Errorf("%s\nthe message does not say %q: %s", reason, part, &message)
		}
	}
}

// TestDataDir has what can be wrong with a data directory that has been used.
func TestDataDir(t *testing.T) {
	if err := cluster.Up(); err != nil {
		t.Fatal(err)
	}
	t.Run("Again", func(t *testing.T) {
		out, err := exec.CommandContext(t.Context(), cluster.Binary(), append([]string{"up", "--detach"}, cluster.Dirs(cluster.DataDir)...)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "already running since") {
			t.Errorf("up --detach beside itself: %v\n%s", err, out)
		}
	})
	say := []string{"already running", fmt.Sprintf("pid %d", cluster.PID(t, "flyball"))}
	t.Run("InUse", func(t *testing.T) {
		refused(t, "A data directory has one user.", cluster.Dirs(cluster.DataDir), say, false, nil)
	})
	t.Run("OtherCluster", func(t *testing.T) {
		refused(t, "A machine has one cluster.", cluster.Dirs(t.TempDir()), say, true, nil)
	})
	if err := cluster.Flyball("down"); err != nil {
		t.Fatal(err)
	}
	cluster.NothingLeft(t)

	t.Run("OtherRange", func(t *testing.T) {
		failed(t, append(cluster.Dirs(cluster.DataDir), "--service-cidr", "10.99.0.0/16"), []string{"10.43.0.0/16", "10.99.0.0/16", "data directory"})
	})
	t.Run("Damaged", func(t *testing.T) {
		databases, err := filepath.Glob(filepath.Join(cluster.DataDir, "server", "etcd", "member", "snap", "db"))
		if err != nil || len(databases) != 1 {
			t.Fatalf("there is no database: %v %v", databases, err)
		}
		if err := os.WriteFile(databases[0], bytes.Repeat([]byte("x"), 1<<16), 0o600); err != nil {
			t.Fatal(err)
		}
		failed(t, cluster.Dirs(cluster.DataDir), []string{"database"})
	})
}

// failed runs `flyball up --detach`, which must fail after it has begun, with one message, and leave nothing.
func failed(t *testing.T, args, say []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), cluster.Binary(), append([]string{"up", "--detach"}, args...)...)
	var message bytes.Buffer
	cmd.Stderr = &message
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("flyball up %v: %v, want exit code 1", args, err)
	}
	if n := strings.Count(message.String(), "\n"); n != 1 {
		t.Errorf("the message has %d lines, want one: %s", n, &message)
	}
	for _, part := range say {
		if !strings.Contains(message.String(), part) {
			t.Errorf("the message does not say %q: %s", part, &message)
		}
	}
	cluster.NothingLeft(t)
}

// file writes a configuration with these fields, and returns its path.
func file(t *testing.T, fields string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte("apiVersion: config.flyball.dev/v1alpha1\nkind: FlyballConfiguration\n"+fields), 0o644); err != nil {
		t.Fatal(err)
	}
	// Another user reads it too.
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// tmpfs mounts a file system and returns its directory.
func tmpfs(t *testing.T, options string, flags uintptr) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// hostNetwork is an IPv4 network of this machine.
func hostNetwork(t *testing.T) (iface, prefix string) {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
				network := net.IPNet{IP: n.IP.Mask(net.CIDRMask(16, 32)), Mask: net.CIDRMask(16, 32)}
				return i.Name, network.String()
			}
		}
	}
	t.Skip("this machine has no network")
	return "", ""
}
