// Package cluster gives the end-to-end tests a real cluster on this machine: bin/flyball, started once for each story
// with a data directory of its own. It needs root and the ports of a cluster, and has the machine for itself.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	"flyball.dev/test/images"
)

// lockFile keeps two test runs of this machine apart.
const lockFile = "/run/flyball-e2e.lock"

// Root is the directory of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0) //nolint:dogsled // only the file matters
	return filepath.Join(filepath.Dir(file), "..", "..", "..", "..")
}

// Binary is the program under test.
func Binary() string { return filepath.Join(Root(), "bin", "flyball") }

// DataDir is the data directory of the cluster of this test run.
var DataDir string

// Dirs are the arguments with which `flyball up` keeps everything in a data directory. The root directory of the node agent
// would otherwise be the machine's, and whoever stopped a cluster here has it.
func Dirs(data string) []string {
	return []string{"--data-dir", data, "--root-dir", filepath.Join(data, "root")}
}

// Main runs the tests of a story with a cluster, started with further arguments of `flyball up`.
func Main(m *testing.M, args ...string) { main(m, true, args...) }

// MainWithout runs the tests of a story that starts clusters itself, or none.
func MainWithout(m *testing.M) { main(m, false) }

func main(m *testing.M, start bool, args ...string) {
	code, err := run(m, start, args...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M, start bool, args ...string) (code int, err error) {
	if os.Geteuid() != 0 {
		fmt.Println("skipping the end-to-end tests: they need root")
		return 0, nil
	}
	if _, err := os.Stat(Binary()); err != nil {
		return 1, fmt.Errorf("looking for the program under test: %w; run `make build`", err)
	}
	lock, err := acquire()
	if err != nil {
		return 1, err
	}
	defer lock.Close()
	// Somebody's own cluster is not ours to stop.
	if exec.Command(Binary(), "status").Run() == nil {
		return 1, errors.New("a cluster runs on this machine; stop it with `make down` first")
	}
	// The data directory lies there.
	if err := checkDisk(os.TempDir()); err != nil {
		return 1, err
	}
	before = Leftovers()
	DataDir, err = os.MkdirTemp("", "flyball-e2e-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, Down()) }()
	if start {
		if err := Up(args...); err != nil {
			return 1, err
		}
		if err := importToolbox(); err != nil {
			return 1, err
		}
	}
	code = m.Run()
	if code != 0 {
		dump()
	}
	return code, nil
}

// diskNeeded is the share of the disk, in percent, that must be available: with less the Node reports DiskPressure, and no
// Pod is started.
const diskNeeded = 10

func checkDisk(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("measuring the file system of %s: %w", dir, err)
	}
	if 100*fs.Bavail < diskNeeded*fs.Blocks {
		return fmt.Errorf("of the file system of %s, %d %% are available, and the tests need %d %%: with less all Pods would stay Pending; make room, or set TMPDIR",
			dir, 100*fs.Bavail/fs.Blocks, diskNeeded)
	}
	return nil
}

func acquire() (*os.File, error) {
	f, err := os.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of the end-to-end tests: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("waiting for other end-to-end tests: %w", err)
	}
	return f, nil
}

// Up starts the cluster in the background, with further arguments of `flyball up`.
func Up(args ...string) error {
	return Flyball(slices.Concat([]string{"up", "--detach"}, Dirs(DataDir), args)...)
}

// Down stops the cluster and removes its data.
func Down() error {
	err := Flyball("down", "--purge", "--data-dir", DataDir)
	return errors.Join(err, os.RemoveAll(DataDir))
}

// Flyball runs the program under test and shows what it prints.
func Flyball(args ...string) error {
	fmt.Println("$ flyball", strings.Join(args, " "))
	cmd := exec.Command(Binary(), args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running flyball %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// Toolbox is the image whose programs the tests run in Pods.
var Toolbox = images.Ref("toolbox")

// Hello is the image of the sample web server.
var Hello = images.Ref("hello")

func importToolbox() error {
	file, err := ToolboxArchive()
	if err != nil {
		return err
	}
	defer os.Remove(file)
	return Flyball("image", "import", file)
}

// ToolboxArchive writes the toolbox image to a file, for `flyball image import`.
func ToolboxArchive() (string, error) {
	tag, img, err := images.Build(context.Background(), "toolbox")
	if err != nil {
		return "", err
	}
	file := filepath.Join(DataDir, "toolbox.tar")
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		return "", fmt.Errorf("writing the toolbox image: %w", err)
	}
	return file, nil
}

// dump shows what helps to understand a failure.
func dump() {
	_ = Flyball("status")
	for _, args := range [][]string{
		{"get", "nodes,pods,services,endpointslices", "--all-namespaces", "-o", "wide"},
		{"get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"},
	} {
		_ = Flyball(append([]string{"kubectl"}, args...)...)
	}
	for _, name := range []string{"flyball.log", "flyball.err", "containerd.log"} {
		tail(filepath.Join(DataDir, "log", name))
	}
}

const tailBytes = 16 << 10

func tail(file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		return
	}
	if len(data) > tailBytes {
		data = data[len(data)-tailBytes:]
	}
	fmt.Printf("==> %s <==\n%s\n", file, data)
}
