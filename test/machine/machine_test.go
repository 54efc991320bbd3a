//go:build linux

package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// name is the tests' own machine.
const name = "machinetest"

// asProgram in the environment makes the test binary the program under test: it starts itself in three ways.
const asProgram = "FLYBALL_TEST_MACHINE"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// machine runs the program and returns what it printed, and its exit code.
func machine(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return strings.TrimSpace(out.String()), cmd.ProcessState.ExitCode()
}

// in runs a shell script in the tests' machine, makes it where there is none, and returns what it printed.
func in(t *testing.T, script string) string {
	t.Helper()
	out, code := machine(t, "run", name, "--address", "192.168.78.2/30", "--host", "192.168.78.1/30", "--", "sh", "-c", script)
	if code != 0 {
		t.Fatalf("%s: exit code %d\n%s", script, code, out)
	}
	return out
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making namespaces needs root")
	}
	t.Cleanup(func() {
		if out, code := machine(t, "remove", name); code != 0 {
			t.Errorf("removing the machine: %s", out)
		}
	})
}

func TestMachineIsApart(t *testing.T) {
	needRoot(t)
	for what, c := range map[string]struct{ reason, script, want string }{
		"host name":   {"nodes are named after it", "hostname", name},
		"processes":   {"one agent must not end what the other runs", "cat /proc/1/cmdline | tr '\\0' ' '", "/proc/self/exe init"},
		"run":         {"sockets and pid files lie there", "ls -A /run", ""},
		"data":        {"each node has its own", "ls -A /var/lib /var/log | xargs", "/var/lib: /var/log:"},
		"links":       {"sysfs shows those of the namespace", "ls /sys/class/net | xargs", "eth0 lo"},
		"cgroups":     {"so that /kubepods are two", "grep -v : /proc/self/cgroup; cut -d: -f3 /proc/self/cgroup | sort -u | grep -vx -e / -e /init; true", ""},
		"propagation": {"Pods may ask for it", "grep ' / / ' /proc/self/mountinfo | grep -c shared:", "1"},
	} {
		if diff := cmp.Diff(c.want, in(t, c.script)); diff != "" {
			t.Errorf("%s: %s: -want +got:\n%s", what, c.reason, diff)
		}
	}
	if out, code := machine(t, "exec", name, "--", "sh", "-c", "exit 7"); code != 7 {
		t.Errorf("exit code %d, want 7: %s", code, out)
	}
	if out, code := machine(t, "exec", "nosuch", "--", "true"); code != 1 || !strings.Contains(out, "there is none") {
		t.Errorf("a machine that is not there: exit code %d: %s", code, out)
	}
}

func TestMachineReachesTheHost(t *testing.T) {
	needRoot(t)
	in(t, "true")
	l, err := net.Listen("tcp", "192.168.78.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(c.RemoteAddr().(*net.TCPAddr).IP.String()))
			_ = c.Close()
		}
	}()
	dial := func(address string) (string, int) {
		host, port, _ := net.SplitHostPort(address)
		return machine(t, "exec", name, "--", "bash", "-c", "timeout 10 cat < /dev/tcp/"+host+"/"+port)
	}
	if out, code := dial(l.Addr().String()); code != 0 || out != "192.168.78.2" {
		t.Errorf("dialing the host: exit code %d: %s", code, out)
	}
	for _, address := range []string{"10.42.1.1:80", "10.43.0.1:443"} {
		if out, code := dial(address); code == 0 || !strings.Contains(out, "No route to host") {
			t.Errorf("dialing %s: exit code %d, want no route: %s", address, code, out)
		}
	}
}

func TestAddressInUse(t *testing.T) {
	needRoot(t)
	in(t, "true")
	out, code := machine(t, "run", "other", "--address", "192.168.78.3/24", "--host", "192.168.78.4/24", "--", "true")
	if code != 1 || !strings.Contains(out, "has the address 192.168.78.1/30 already") {
		t.Errorf("exit code %d: %s", code, out)
	}
	if _, err := os.Stat((Machine{Name: "other"}).dir()); err == nil {
		t.Error("a machine that could not be made is left")
	}
}

// Whatever is done in a machine, the host is afterwards as it was before.
func TestRemoveLeavesNothing(t *testing.T) {
	needRoot(t)
	// A cluster on the host may mount and unmount meanwhile.
	checkMounts := func() {
		t.Helper()
		body, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(body)) {
			if strings.Contains(line, "machine") {
				t.Errorf("the host sees a mount of the machine: %s", line)
			}
		}
	}
	all, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	in(t, `set -e
mount -t tmpfs of-machine /mnt
echo x > /etc/flyball-machine-test
for d in `+strings.Join(paths(all), " ")+`; do mkdir -p $d/kubepods/pod1; done
setsid sleep 1000 > /dev/null 2>&1 &`)
	checkMounts()
	for _, h := range all {
		if _, err := os.Stat(filepath.Join(h.Path, "kubepods", "pod1")); err == nil {
			t.Errorf("a cgroup of the machine is the host's: %s", h.Path)
		}
	}
	m := Machine{Name: name}
	pid, err := m.first()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to remove
		if out, code := machine(t, "remove", name); code != 0 {
			t.Fatalf("removing the machine: %s", out)
		}
	}
	if _, err := startOf(pid); err == nil {
		t.Errorf("its first process, %d, still runs", pid)
	}
	checkMounts()
	if _, err := net.InterfaceByName(m.linkName()); err == nil {
		t.Error("the link is left")
	}
	for _, path := range append(cgroupsOf(all), m.dir(), "/etc/flyball-machine-test") {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
}

// A process id that was used again is not ours to kill.
func TestOldProcessID(t *testing.T) {
	needRoot(t)
	in(t, "true")
	m := Machine{Name: name}
	if out, code := machine(t, "remove", name); code != 0 {
		t.Fatal(out)
	}
	if err := os.MkdirAll(m.dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.dir(), "pid"), []byte("1 12345\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if pid, err := m.first(); err == nil {
		t.Errorf("process %d is taken for the machine's", pid)
	}
	in(t, "true") // is made anew
}

func TestParseHierarchies(t *testing.T) {
	//nolint:dupword // that is how the kernel prints it
	for name, c := range map[string]struct {
		mountinfo string
		want      []hierarchy
	}{
		"v2": {"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n", []hierarchy{{Path: "/sys/fs/cgroup", V2: true}}},
		"v1": {
			`31 30 0:26 / /sys/fs/cgroup/systemd rw shared:5 - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
32 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 30 0:27 /machine /var/x/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
35 30 0:29 / /tmp rw - tmpfs tmpfs rw
`, []hierarchy{
				{Path: "/sys/fs/cgroup/systemd", Options: "none,name=systemd"},
				{Path: "/sys/fs/cgroup/cpu,cpuacct", Options: "cpu,cpuacct"},
				{Path: "/sys/fs/cgroup/unified", V2: true},
			},
		},
	} {
		if diff := cmp.Diff(c.want, parseHierarchies(c.mountinfo)); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}

func TestBadCommandLine(t *testing.T) {
	for want, args := range map[string][]string{
		"usage":                 {"run", name},
		"at most 11":            {"run", "a-name-that-is-too-long", "--", "true"},
		"reading --unreachable": {"run", name, "--unreachable", "x", "--", "true"},
	} {
		if err := run(args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", args, err, want)
		}
	}
}

func paths(all []hierarchy) []string {
	var list []string
	for _, h := range all {
		list = append(list, h.Path)
	}
	return list
}

func cgroupsOf(all []hierarchy) []string {
	var list []string
	for _, h := range all {
		list = append(list, h.of(name))
	}
	return list
}

func TestPodMounts(t *testing.T) {
	//nolint:dupword // that is how the kernel prints it
	got := podMounts(`27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
28 27 0:29 / /tmp rw - tmpfs tmpfs rw
121 27 0:4 net:[4026532184] /tmp/x/netns/cni-1 rw - nsfs nsfs rw
322 27 0:131 / /run/flyball/containerd/task/rootfs rw,relatime - overlay overlay rw
43 27 0:39 / /tmp/x/root/pods/0079/volumes/kubernetes.io~projected/token rw - tmpfs tmpfs rw
`)
	want := []string{"/tmp/x/netns/cni-1", "/run/flyball/containerd/task/rootfs", "/tmp/x/root/pods/0079/volumes/kubernetes.io~projected/token"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
