//go:build linux

package launch

import (
	"context"
	"fmt"
	"os"
	"slices"
	"syscall"

	"k8s.io/klog/v2"

	"flyball.dev/host/progress"
)

// restartedEnv is in the environment of a program that has restarted itself.
const restartedEnv = "FLYBALL_RESTARTED"

// IsRestarted reports whether this program has restarted itself. It removes the mark from the
// environment, so that children do not inherit it.
func IsRestarted() bool {
	_, restarted := os.LookupEnv(restartedEnv)
	_ = os.Unsetenv(restartedEnv) // fails only for a name that no variable can have
	return restarted
}

// Restarter restarts this program as it was started and in the same process, so that a shell or
// service manager sees the same process. Descriptors and locks are released, and Pods and the
// container runtime run on, as if the program had been killed and started.
type Restarter struct {
	ctx       context.Context
	dir, self string
	env       []string
}

// NewRestarter returns a Restarter that adds env to the environment, and does not restart once ctx
// is cancelled.
func NewRestarter(ctx context.Context, env []string) (*Restarter, error) {
	dir, err := os.Getwd() // paths among the arguments are relative to it
	if err != nil {
		return nil, fmt.Errorf("finding the working directory: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	return &Restarter{ctx: ctx, dir: dir, self: self, env: env}, nil
}

// Restart restarts the program because of cause, and does not return. If the context is cancelled,
// the process was asked to stop: it exits with the cause as its error, as after any other error.
func (r *Restarter) Restart(cause error) {
	if r.ctx.Err() != nil {
		klog.Errorf("Stopping: %v", cause)
		klog.Flush()
		fmt.Fprintln(os.Stderr, progress.ErrorPrefix+cause.Error())
		os.Exit(1)
	}
	klog.Errorf("Restarting: %v", cause)
	klog.Flush()
	_ = os.Chdir(r.dir) // if it is gone, only relative paths are lost
	//nolint:gosec // the arguments are those that this program was started with
	err := syscall.Exec(r.self, os.Args, slices.Concat(os.Environ(), r.env, []string{restartedEnv + "=1"}))
	panic(fmt.Sprintf("restarting %s: %v, after: %v", r.self, err, cause))
}
