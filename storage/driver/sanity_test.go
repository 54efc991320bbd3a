//go:build linux

package driver

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"

	"flyball.dev/internal/mounts"
)

// TestSanity runs the suite of the CSI specification, for file systems and for devices.
func TestSanity(t *testing.T) {
	needRoot(t)
	for _, access := range []string{"mount", "block"} {
		dir := tempDir(t)
		socket := serve(t, New(Config{NodeName: "node", Dir: dir, ReservePercent: 1, Version: "1"}))
		config := sanity.NewTestConfig()
		config.Address = "unix:" + socket
		config.TargetPath, config.StagingPath = filepath.Join(dir, "target"), filepath.Join(dir, "staging")
		config.TestVolumeSize, config.TestVolumeExpandSize = 100<<20, 150<<20
		config.TestVolumeAccessType, config.IdempotentCount = access, 3
		defer sanity.GinkgoTest(&config).Finalize()
	}
	gomega.RegisterFailHandler(ginkgo.Fail)
	suite, reporter := ginkgo.GinkgoConfiguration()
	reporter.Succinct = true
	ginkgo.RunSpecs(t, "CSI sanity", suite, reporter)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("loop devices and mounts need root")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("the kernel has no loop devices: ", err)
	}
}

// tempDir is a directory that is removed with everything that is mounted in it.
func tempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := mounts.UnmountBelow(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// serve returns the socket of a driver that serves until the test ends.
func serve(t *testing.T, d *Driver) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	socket := filepath.Join(t.TempDir(), "csi.sock")
	done := make(chan error, 1)
	go func() { done <- d.Serve(ctx, socket) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for {
		if _, err := os.Stat(socket); err == nil {
			return socket
		}
		select {
		case err := <-done:
			t.Fatal(err)
		default:
		}
	}
}
