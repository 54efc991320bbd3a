package envtest

import (
	"context"
	"fmt"
	"io"
	"os"

	"flyball.dev/controlplane/programs"
	"flyball.dev/kubelet/simulated"
)

// Variables that package flyballtest sets for the processes that it starts.
const (
	// TokenVariable holds the token for checkpoints of a kube-apiserver.
	TokenVariable = "FLYBALL_ENVTEST_TOKEN" //nolint:gosec // the name of a variable
	// ParentVariable, if it is "stdin", ends the process when its standard input does: it was started by a test, which holds
	// the other end and may die without saying so.
	ParentVariable = "FLYBALL_ENVTEST_PARENT"
)

// EndWithParent ends this process when that ends which started it, if the environment asks for it.
func EndWithParent() {
	if os.Getenv(ParentVariable) != "stdin" {
		return
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
}

// RunParts runs what Mode asks for against a kube-apiserver in another process, until ctx ends. A Mode of nodes alone runs
// those alone. up is called when all of it works.
func RunParts(ctx context.Context, m Mode, server programs.Server, up func()) error {
	behind := m.Behind()
	if !m.Controllers {
		behind = func(ctx context.Context, server programs.Server, up func()) error {
			return simulated.Run(ctx, simulated.Config{Client: server.Client, Nodes: m.Nodes, Ready: up})
		}
	}
	if err := behind(ctx, server, up); err != nil && ctx.Err() == nil {
		return fmt.Errorf("running what is behind kube-apiserver: %w", err)
	}
	return nil
}
