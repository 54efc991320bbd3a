package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// product are the files that are Flyball: the program, and what it runs from the directory that it lies in.
var product = []string{
	"flyball", "containerd", "containerd-shim-runc-v2", "runc", "cni/bridge", "cni/host-local", "cni/loopback", "cni/portmap",
	"images/pause.tar",
}

// Check tells at once what Up would find missing after minutes of building the suite.
func (c Cluster) Check() error {
	var failed error
	for _, name := range append([]string{"machine"}, product...) {
		if _, err := os.Stat(c.program(name)); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	if failed != nil {
		return fmt.Errorf("looking for what the cluster is made of: %w\nrun `make build bin/machine` first; `make conformance` does", failed)
	}
	if os.Geteuid() != 0 {
		return errors.New("starting a cluster needs root: run this as root, or test another cluster with KUBECONFIG=/path")
	}
	return nil
}

// Build identifies the build of Flyball: it changes with any of its programs.
func (c Cluster) Build() (string, error) {
	all := sha256.New()
	for _, name := range product {
		sum, err := hash(c.program(name))
		if err != nil {
			return "", fmt.Errorf("identifying the build of Flyball: %w", err)
		}
		_, _ = fmt.Fprintf(all, "%s %x\n", name, sum)
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}

func hash(path string) ([]byte, error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}
