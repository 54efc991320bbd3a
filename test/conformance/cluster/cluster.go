// Package cluster brings up the cluster that the suite runs against, and takes it down again without a trace. It runs the
// flyball program as a user would, and knows nothing of what is inside.
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

// Cluster is a cluster of Flyball's on this machine.
type Cluster struct {
	// Bin is the flyball program.
	Bin string
	// DataDir is the cluster's own: nothing of another cluster of this machine is in it.
	DataDir string
}

// Kubeconfig is that of the cluster's administrator.
func (c Cluster) Kubeconfig() string { return "/etc/flyball/kubeconfig" }

// Nodes is how many nodes the cluster has.
func (c Cluster) Nodes() int { return 1 }

// Up starts a fresh cluster and returns once its node is Ready. It refuses if the machine already runs one.
func (c Cluster) Up(ctx context.Context) error {
	if _, err := c.run(ctx, "status"); err == nil {
		return errors.New("starting a cluster: this machine already runs one; stop it with `flyball down`, or test it with KUBECONFIG=" + c.Kubeconfig())
	}
	// An earlier run may have been killed.
	if _, err := os.Stat(c.DataDir); err == nil {
		if err := c.Down(ctx); err != nil {
			return err
		}
	}
	if out, err := c.run(ctx, "up", "--detach", "--data-dir", c.DataDir); err != nil {
		return fmt.Errorf("starting a cluster: %w\n%s", err, out)
	}
	return nil
}

// Down stops the cluster and removes all that it left on the machine.
func (c Cluster) Down(ctx context.Context) error {
	if out, err := c.run(ctx, "down", "--purge", "--data-dir", c.DataDir); err != nil {
		return fmt.Errorf("stopping the cluster: %w\n%s", err, out)
	}
	return nil
}

// Version is what flyball says its version is, in one line.
func (c Cluster) Version(ctx context.Context) string {
	out, err := c.run(ctx, "version")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return strings.Join(strings.Fields(first), " ")
}

// Logs copies the logs of the cluster's parts into a directory.
func (c Cluster) Logs(dir string) error {
	from := filepath.Join(c.DataDir, "log")
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		return copyFile(path, filepath.Join(dir, rel))
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

// run runs flyball. It is not ended with ctx in the middle of a step: what it has begun, it finishes or undoes.
func (c Cluster) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.Bin, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.Bytes(), err
}
