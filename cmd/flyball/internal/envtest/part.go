package envtest

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"flyball.dev/controlplane/programs"
)

// Variables that package flyballtest sets for the processes that it starts.
const (
	// TokenVariable holds the token for checkpoints of a kube-apiserver.
	TokenVariable = "FLYBALL_ENVTEST_TOKEN" //nolint:gosec // the name of a variable
	// ParentVariable, if it is "stdin", ends the process when its standard input does: it was started by a test, which holds
	// the other end and may die without saying so.
	ParentVariable = "FLYBALL_ENVTEST_PARENT"
	// DirectoryVariable names the directory of the test's cluster, which is removed then: the test cannot do it any more.
	DirectoryVariable = "FLYBALL_ENVTEST_DIRECTORY"

	// directoryPrefix is how the name of such a directory begins. No other is removed.
	directoryPrefix = "flyballtest-"
	// removePatience is how long it is tried to remove it. Nobody is there to be told.
	removePatience = 5 * time.Second
)

// EndWithParent ends this process when that ends which started it, if the environment asks for it.
func EndWithParent() {
	if os.Getenv(ParentVariable) != "stdin" {
		return
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		if dir := os.Getenv(DirectoryVariable); strings.HasPrefix(filepath.Base(dir), directoryPrefix) {
			for began := time.Now(); os.RemoveAll(dir) != nil && time.Since(began) < removePatience; { // others write there until they end
				time.Sleep(10 * time.Millisecond)
			}
		}
		os.Exit(0)
	}()
}

// AwaitParent returns when the process that started this one says so, by a line on standard input. It returns false if that
// has ended instead.
func AwaitParent() bool {
	var line [1]byte // no more than the line: EndWithParent reads on
	for line[0] != '\n' {
		if _, err := os.Stdin.Read(line[:]); err != nil {
			return false
		}
	}
	return true
}

// RunParts runs what Mode asks for against a kube-apiserver in another process, until ctx ends. A Mode of nodes alone runs
// those alone. up is called when all of it works.
func RunParts(ctx context.Context, m Mode, server programs.Server, up func()) error {
	behind := m.Behind()
	if !m.Controllers {
		behind = m.runNodes
	}
	if err := behind(ctx, server, up); err != nil && ctx.Err() == nil {
		return fmt.Errorf("running what is behind kube-apiserver: %w", err)
	}
	return nil
}
