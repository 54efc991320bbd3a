//go:build linux

package containerd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// cgroup is where containers of this test are, and of no other that runs beside it.
var cgroup = fmt.Sprintf("/flyball-containerd-test-%d", os.Getpid())

const conflist = `{"cniVersion":"1.0.0","name":"flyball-test","plugins":[{"type":"bridge","bridge":"test0","isGateway":true,"hairpinMode":true,
"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"192.0.2.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`

// newTestConfig returns a configuration in directories of the test's own, and skips the test where
// the bundled programs or the privileges are missing.
func newTestConfig(t *testing.T) Config {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("starting containers needs root")
	}
	bin, err := filepath.Abs("../bin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "containerd")); err != nil {
		t.Skip("`make bundled images` builds what this test runs")
	}
	state, err := os.MkdirTemp("/run", "flyball-test-") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	c := Config{
		BinDir: bin, RootDir: filepath.Join(root, "containerd"), StateDir: state, Socket: filepath.Join(state, "containerd.sock"),
		CNIBinDir: filepath.Join(bin, "cni"), CNIConfDir: filepath.Join(root, "cni"), LogFile: filepath.Join(root, "log"),
		SandboxImage: "flyball.dev/pause:1", RegistryHosts: filepath.Join(root, "certs.d"),
	}
	if err := os.MkdirAll(c.CNIConfDir, 0o755); err != nil {
		t.Fatal(err)
	}
	network := fmt.Sprintf(conflist, filepath.Join(state, "ipam"))
	if err := os.WriteFile(filepath.Join(c.CNIConfDir, "10-test.conflist"), []byte(network), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Stop(context.Background(), c); err != nil {
			t.Errorf("stopping: %v", err)
		}
		results, _ := filepath.Glob("/var/lib/cni/results/flyball-test-*") // libcni's cache, which Stop leaves to the network
		for _, file := range results {
			_ = os.Remove(file)
		}
		if t.Failed() {
			log, _ := os.ReadFile(c.LogFile)
			t.Logf("containerd's log:\n%s", log)
		}
	})
	return c
}

// run calls Run in a network namespace of the test's own, which containerd inherits, and returns
// when containerd is ready. The function that it returns ends Run.
func run(t *testing.T, c Config) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	c.Ready = sync.OnceFunc(func() { close(ready) })
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- Run(ctx, c)
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatalf("running: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("containerd did not become ready")
	}
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("running: %v", err)
		}
	}
}

func pid(t *testing.T, c Config) int {
	t.Helper()
	p, err := findRunning(c)
	if err != nil || p == nil {
		t.Fatalf("finding containerd: %v, %v", p, err)
	}
	defer p.release()
	return p.pid
}

func importFile(t *testing.T, c Config, name string) []string {
	t.Helper()
	f, err := os.Open(filepath.Join(c.BinDir, "images", name+".tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	names, err := load(context.Background(), c.Socket, f, false)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// startContainer starts a sandbox with a hello container and returns the container's id and
// process.
func startContainer(t *testing.T, c Config) (id string, process int) {
	t.Helper()
	conn, err := dialCRI(c.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client, ctx := runtimeapi.NewRuntimeServiceClient(conn), context.Background()
	sandbox := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "pod", Namespace: "default", Uid: "1"},
		LogDirectory: t.TempDir(),
		Linux:        &runtimeapi.LinuxPodSandboxConfig{CgroupParent: cgroup},
	}
	began := time.Now()
	pod, err := client.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: sandbox})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("RunPodSandbox took %s", time.Since(began))
	began = time.Now()
	created, err := client.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: pod.PodSandboxId, SandboxConfig: sandbox,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "hello"},
			Image:    &runtimeapi.ImageSpec{Image: "flyball.dev/hello:1"},
			LogPath:  "hello.log",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		t.Fatal(err)
	}
	t.Logf("CreateContainer and StartContainer took %s", time.Since(began))
	return created.ContainerId, containerProcess(t, c, created.ContainerId)
}

func containerProcess(t *testing.T, c Config, id string) int {
	t.Helper()
	conn, err := dialCRI(c.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	status, err := runtimeapi.NewRuntimeServiceClient(conn).ContainerStatus(context.Background(), &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	if status.Status.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Fatalf("container is %s", status.Status.State)
	}
	_, info, _ := strings.Cut(status.Info["info"], `"pid":`)
	number, _, _ := strings.Cut(info, ",")
	process, err := strconv.Atoi(number)
	if err != nil {
		t.Fatalf("reading the process of %s: %v", id, err)
	}
	return process
}

// One story on one containerd, because starting one takes most of the time: what is imported is
// there, what runs goes on running whatever happens to Flyball and to containerd, and nothing is
// left after Stop.
func TestRuntimeLife(t *testing.T) {
	c := newTestConfig(t)
	began := time.Now()
	stop := run(t, c)
	t.Logf("ready after %s", time.Since(began))
	first := pid(t, c)

	for _, name := range []string{"pause", "hello"} {
		if got, want := importFile(t, c, name), []string{"flyball.dev/" + name + ":1"}; !slices.Equal(got, want) {
			t.Fatalf("imported %v, want %v", got, want)
		}
	}
	began = time.Now()
	importFile(t, c, "hello")
	t.Logf("importing what is there took %s", time.Since(began))
	list, err := ListImages(context.Background(), c.Socket)
	if err != nil || len(list) != 2 || !list[1].Pinned || list[0].Pinned {
		t.Fatalf("images: %+v, %v; want hello, and pause pinned", list, err)
	}
	container, process := startContainer(t, c)

	stop()
	stop = run(t, c)
	if got := pid(t, c); got != first {
		t.Errorf("containerd is process %d after a restart of Run, want %d: it was not adopted", got, first)
	}

	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "another containerd", func() bool {
		p, err := findRunning(c)
		if err != nil || p == nil {
			return false
		}
		defer p.release()
		_, err = ListImages(context.Background(), c.Socket)
		return p.pid != first && err == nil
	})
	if got := containerProcess(t, c, container); got != process {
		t.Errorf("container is process %d after containerd died, want %d", got, process)
	}
	stop()

	second := pid(t, c)
	changed := c
	changed.SandboxImage = "flyball.dev/hello:1"
	stop = run(t, changed)
	if got := pid(t, c); got == second {
		t.Error("containerd was adopted with another configuration")
	}
	if got := containerProcess(t, c, container); got != process {
		t.Errorf("container is process %d after a change of configuration, want %d", got, process)
	}
	stop()

	began = time.Now()
	if err := Stop(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	t.Logf("Stop took %s", time.Since(began))
	if err := unix.Kill(process, 0); err == nil {
		t.Errorf("process %d of the container is left", process)
	}
	if shims, err := pidsWith(shimProgram, "-address", c.Socket); err != nil || len(shims) != 0 {
		t.Errorf("shims left: %v, %v", shims, err)
	}
	for _, pattern := range []string{"/sys/fs/cgroup" + cgroup, "/sys/fs/cgroup/*" + cgroup} {
		dirs, _ := filepath.Glob(pattern)
		for _, dir := range dirs {
			if err := os.Remove(dir); err != nil { // it is not empty
				t.Errorf("cgroups left: %v", err)
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), c.StateDir) || strings.Contains(string(mounts), c.RootDir) {
		t.Errorf("mounts left (%v):\n%s", err, mounts)
	}
	if _, err := os.Stat(c.StateDir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", c.StateDir, err)
	}
	if err := Stop(context.Background(), c); err != nil {
		t.Errorf("stopping twice: %v", err)
	}
}

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
