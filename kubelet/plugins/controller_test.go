package plugins

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// driver serves a registration socket.
type driver struct {
	registerapi.UnimplementedRegistrationServer

	info *registerapi.PluginInfo
	hang bool
	told chan *registerapi.RegistrationStatus
}

func (d *driver) GetInfo(ctx context.Context, _ *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	if d.hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return d.info, nil
}

func (d *driver) NotifyRegistrationStatus(_ context.Context, s *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	select {
	case d.told <- s:
	default: // told before
	}
	return &registerapi.RegistrationStatusResponse{}, nil
}

func csi(name string) *driver {
	return &driver{
		info: &registerapi.PluginInfo{Type: registerapi.CSIPlugin, Name: name, Endpoint: "/csi.sock", SupportedVersions: []string{"1.0.0"}},
		told: make(chan *registerapi.RegistrationStatus, 10),
	}
}

// serve serves the driver at path until stop, which removes the socket.
func (d *driver) serve(t *testing.T, path string) (stop func()) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	registerapi.RegisterRegistrationServer(s, d)
	var served sync.WaitGroup
	served.Go(func() { _ = s.Serve(l) })
	stop = sync.OnceFunc(func() { s.Stop(); served.Wait() })
	t.Cleanup(stop)
	return stop
}

// handler notes its calls, and fails the first Register calls.
type handler struct {
	mu       sync.Mutex
	calls    []string
	failures int
}

func (h *handler) Validate(p Plugin) error {
	if !slices.Contains(p.Versions, "1.0.0") {
		return fmt.Errorf("version %s is not supported, 1.0.0 is", strings.Join(p.Versions, ", "))
	}
	return nil
}

func (h *handler) Register(_ context.Context, p Plugin) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failures > 0 {
		h.failures--
		return errors.New("the node has no name")
	}
	h.calls = append(h.calls, "register "+p.Name+" from "+filepath.Base(p.Socket))
	return nil
}

func (h *handler) Deregister(p Plugin) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, "deregister "+p.Name+" from "+filepath.Base(p.Socket))
}

// await waits until the calls are these, in any order of names.
func (h *handler) await(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		h.mu.Lock()
		got = slices.Clone(h.calls)
		h.mu.Unlock()
		if slices.Equal(got, want) {
			return
		}
	}
	t.Fatalf("the handler's calls are %q, want %q", got, want)
}

// run runs a Controller on a new directory until the test ends.
func run(t *testing.T, h *handler) string {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	dir, err := os.MkdirTemp("", "plugins") //nolint:usetesting // its paths are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	dir = filepath.Join(dir, "plugins_registry")
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	start(t, h, dir)
	return dir
}

func start(t *testing.T, h *handler, dir string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- New(Config{Dir: dir, Handlers: map[string]Handler{registerapi.CSIPlugin: h}}).Run(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (d *driver) awaitStatus(t *testing.T, registered bool, says string) {
	t.Helper()
	select {
	case s := <-d.told:
		if s.GetPluginRegistered() != registered || !strings.Contains(s.GetError(), says) {
			t.Errorf("the driver is told %v, want %v and %q", s, registered, says)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the driver is told nothing")
	}
}

// TestRegister: a driver registers, also from a directory below, and goes.
func TestRegister(t *testing.T) {
	h := &handler{}
	dir := run(t, h)
	sub := filepath.Join(dir, "vendor", "example")
	if err := os.MkdirAll(sub, 0o750); err != nil {
		t.Fatal(err)
	}
	d := csi("disk.example")
	stop := d.serve(t, filepath.Join(sub, "reg.sock"))
	d.awaitStatus(t, true, "")
	h.await(t, "register disk.example from reg.sock")
	stop()
	h.await(t, "register disk.example from reg.sock", "deregister disk.example from reg.sock")
}

// TestRestart: the sockets say everything to the next process.
func TestRestart(t *testing.T) {
	dir := run(t, &handler{})
	csi("disk.example").serve(t, filepath.Join(dir, "reg.sock"))
	h := &handler{}
	stop := start(t, h, dir)
	h.await(t, "register disk.example from reg.sock")
	stop()
	h.await(t, "register disk.example from reg.sock") // its driver runs on
}

// TestReplaced: a driver that restarts makes its socket anew.
func TestReplaced(t *testing.T) {
	h := &handler{}
	path := filepath.Join(run(t, h), "reg.sock")
	csi("disk.example").serve(t, path)
	h.await(t, "register disk.example from reg.sock")
	next := csi("disk.example")
	beside := filepath.Join(filepath.Dir(path), ".next")
	next.serve(t, beside)
	if err := os.Rename(beside, path); err != nil { // without a moment in between
		t.Fatal(err)
	}
	next.awaitStatus(t, true, "")
	h.await(t, "register disk.example from reg.sock", "register disk.example from reg.sock")
}

// TestRollingUpdate: the end of the older driver takes nothing from the newer one of its name.
func TestRollingUpdate(t *testing.T) {
	h := &handler{}
	dir := run(t, h)
	stop := csi("disk.example").serve(t, filepath.Join(dir, "z-old.sock"))
	h.await(t, "register disk.example from z-old.sock")
	stopNew := csi("disk.example").serve(t, filepath.Join(dir, "a-new.sock"))
	h.await(t, "register disk.example from z-old.sock", "register disk.example from a-new.sock")
	stop()
	csi("other.example").serve(t, filepath.Join(dir, "other.sock")) // seen after the old one went
	calls := []string{"register disk.example from z-old.sock", "register disk.example from a-new.sock", "register other.example from other.sock"}
	h.await(t, calls...)
	stopNew()
	h.await(t, append(calls, "deregister disk.example from a-new.sock")...)
}

// TestRefused: a driver learns why it is not registered.
func TestRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		change func(*registerapi.PluginInfo)
		says   string
	}{
		"Type":      {"Nobody handles it.", func(i *registerapi.PluginInfo) { i.Type = "Teapot" }, `no plugins of the type "Teapot"`},
		"Name":      {"It would be nobody's.", func(i *registerapi.PluginInfo) { i.Name = "" }, "no name"},
		"NoVersion": {"It speaks nothing.", func(i *registerapi.PluginInfo) { i.SupportedVersions = nil }, "no version"},
		"Version":   {"The handler speaks another.", func(i *registerapi.PluginInfo) { i.SupportedVersions = []string{"0.3.0"} }, "0.3.0 is not supported, 1.0.0 is"},
	} {
		t.Run(name, func(t *testing.T) {
			h := &handler{}
			d := csi("disk.example")
			tc.change(d.info)
			d.serve(t, filepath.Join(run(t, h), "reg.sock"))
			d.awaitStatus(t, false, tc.says)
			h.await(t)
		})
	}
}

// TestRetry: a registration that failed is tried again, and the driver learns of both.
func TestRetry(t *testing.T) {
	h := &handler{failures: 1}
	d := csi("disk.example")
	d.serve(t, filepath.Join(run(t, h), "reg.sock"))
	d.awaitStatus(t, false, "the node has no name")
	d.awaitStatus(t, true, "")
	h.await(t, "register disk.example from reg.sock")
}

// TestSlow: a socket without a driver and a driver that hangs keep nobody waiting, and count as soon
// as they answer.
func TestSlow(t *testing.T) {
	h := &handler{}
	dir := run(t, h)
	hanging := csi("hanging.example")
	hanging.hang = true
	stop := hanging.serve(t, filepath.Join(dir, "a.sock"))
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, "b.sock"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) //nolint:forcetypeassert // it is one
	l.Close()
	csi("disk.example").serve(t, filepath.Join(dir, "c.sock"))
	h.await(t, "register disk.example from c.sock")
	stop()
	csi("hanging.example").serve(t, filepath.Join(dir, "a.sock"))
	h.await(t, "register disk.example from c.sock", "register hanging.example from a.sock")
}
