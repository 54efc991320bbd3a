// Package cluster brings up the cluster that the suite runs against, and takes it down again without a trace. It runs the
// flyball program as a user would, and knows nothing of what is inside.
//
// The cluster has two nodes: the host with server and node agent, and a node agent in a machine made of namespaces
// (test/machine), which is linked with the host by a veth pair. What Pods on different nodes send one another goes over that.
package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The machine of the second node, and the link to it.
const (
	machine = "second"
	prefix  = "/30"
	first   = "192.168.77.1"
	second  = "192.168.77.2"
	files   = "/var/lib/flyball-machine/" + machine + "/lib" // its /var/lib
)

// Cluster is a cluster of Flyball's on this machine.
type Cluster struct {
	// Bin is the directory with the programs flyball and machine.
	Bin string
	// DataDir is the cluster's own, below /var/lib: nothing of another cluster of this machine is in it.
	DataDir string
	// Registry is the host and port that images are known by. The second node reaches it at the same port of Address.
	Registry string
}

// Kubeconfig is that of the cluster's administrator.
func (c Cluster) Kubeconfig() string { return "/etc/flyball/kubeconfig" }

// Nodes is how many nodes the cluster has.
func (c Cluster) Nodes() int { return 2 }

// Address is where the second node reaches this host. It exists while the cluster is up.
func (c Cluster) Address() string { return first }

// Up starts a fresh cluster and returns once its nodes are Ready. It refuses if the machine already runs one, or if
// its disk is so full that nodes would refuse Pods. hosts is what the second node's container runtime is to be told about the
// registry. If it fails, nothing is left but logs.
func (c Cluster) Up(ctx context.Context, hosts []byte, logs string) error {
	if _, err := c.flyball(ctx, "status"); err == nil {
		return errors.New("starting a cluster: this machine already runs one; stop it with `flyball down`, or test it with KUBECONFIG=" + c.Kubeconfig())
	}
	// An earlier run may have been killed.
	if err := c.Down(ctx); err != nil {
		return err
	}
	for _, dir := range []string{c.DataDir, files} {
		if err := measure(dir); err != nil {
			return err
		}
	}
	if err := c.start(ctx, hosts); err != nil {
		return errors.Join(err, c.Logs(logs), c.Down(context.WithoutCancel(ctx)))
	}
	return nil
}

func (c Cluster) start(ctx context.Context, hosts []byte) error {
	// The link comes first: its address is the first node's.
	if out, err := c.machine(ctx, "run", machine, "--host", first+prefix, "--address", second+prefix, "--", "true"); err != nil {
		return fmt.Errorf("making the machine of the second node: %w\n%s", err, out)
	}
	if out, err := c.flyball(ctx, "up", "--detach", "--data-dir", c.DataDir, "--node-ip", first); err != nil {
		return fmt.Errorf("starting a cluster: %w\n%s", err, out)
	}
	return c.join(ctx, hosts)
}

// join adds the second node.
func (c Cluster) join(ctx context.Context, hosts []byte) error {
	dir := filepath.Join(c.inMachine(), "registries", c.Registry)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("telling the second node where images are: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), hosts, 0o644); err != nil {
		return fmt.Errorf("telling the second node where images are: %w", err)
	}
	out, err := c.flyball(ctx, "token", "create", "--ttl", "1h")
	if err != nil {
		return fmt.Errorf("making a token for the second node: %w\n%s", err, out)
	}
	// What is printed is the command to join with.
	command := strings.Fields(string(out))
	if len(command) < 2 {
		return fmt.Errorf("making a token for the second node: no command to join with in %q", out)
	}
	args := append([]string{"exec", machine, "--", c.program("flyball")}, command[1:]...)
	if out, err := c.machine(ctx, append(args, "--detach", "--data-dir", c.DataDir, "--node-ip", second)...); err != nil {
		return fmt.Errorf("starting the second node: %w\n%s", err, out)
	}
	if out, err := c.flyball(ctx, "kubectl", "wait", "--for=condition=Ready", "--timeout=2m", "node/"+machine); err != nil {
		return fmt.Errorf("waiting for the second node: %w\n%s", err, out)
	}
	return nil
}

// inMachine is the data directory of the second node, as the host sees it.
func (c Cluster) inMachine() string { return filepath.Join(files, filepath.Base(c.DataDir)) }

// Down stops the cluster and removes all that it left on the machine. A cluster that is not there is no error.
func (c Cluster) Down(ctx context.Context) error {
	var failed error
	if out, err := c.machine(ctx, "remove", machine); err != nil {
		failed = fmt.Errorf("removing the machine of the second node: %w\n%s", err, out)
	}
	if _, err := os.Stat(c.DataDir); errors.Is(err, fs.ErrNotExist) {
		return failed
	}
	if out, err := c.flyball(ctx, "down", "--purge", "--data-dir", c.DataDir); err != nil {
		failed = errors.Join(failed, fmt.Errorf("stopping the cluster: %w\n%s", err, out))
	}
	return failed
}

// Version is what flyball says its version is, in one line.
func (c Cluster) Version(ctx context.Context) string {
	out, err := c.flyball(ctx, "version")
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return strings.Join(strings.Fields(line), " ")
}

// Logs copies the logs of both nodes into a directory.
func (c Cluster) Logs(dir string) error {
	return errors.Join(
		copyFiles(filepath.Join(c.DataDir, "log"), filepath.Join(dir, "first")),
		copyFiles(filepath.Join(c.inMachine(), "log"), filepath.Join(dir, "second")))
}

func copyFiles(from, to string) error {
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		return copyFile(path, filepath.Join(to, rel))
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("copying the cluster's logs: %w", err)
	}
	return nil
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}

func (c Cluster) program(name string) string { return filepath.Join(c.Bin, name) }

func (c Cluster) flyball(ctx context.Context, args ...string) ([]byte, error) {
	return run(ctx, c.program("flyball"), args...)
}

func (c Cluster) machine(ctx context.Context, args ...string) ([]byte, error) {
	return run(ctx, c.program("machine"), args...)
}

// run runs a program. It is not ended with ctx in the middle of a step: what it has begun, it finishes or undoes.
func run(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.Bytes(), err
}
