package envtest

import (
	"context"
	"fmt"
	"os"

	"flyball.dev/controlplane/programs"
)

// TokenVariable holds the token for checkpoints of a kube-apiserver. Package flyballtest sets it.
const TokenVariable = "FLYBALL_ENVTEST_TOKEN" //nolint:gosec // the name of a variable

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
