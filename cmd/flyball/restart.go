//go:build linux

package main

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

// isRestarted reports whether this program has restarted itself. It leaves nothing of that to children.
func isRestarted() bool {
	_, restarted := os.LookupEnv(restartedEnv)
	_ = os.Unsetenv(restartedEnv) // fails only for a name that no variable can have
	return restarted
}

// restart returns what restarts this program as it was started and in the same process, so that a
// shell or service manager sees the same process. To all others it is as if it had been killed and
// started: descriptors and locks are given up, Pods and the container runtime run on. proxy is what
// was taken out of the environment. Once ctx has ended, the process was asked to stop: it ends with
// the cause as its error then, as after any other error.
func restart(ctx context.Context, proxy []string) (func(error), error) {
	dir, err := os.Getwd() // to which paths among the arguments are relative
	if err != nil {
		return nil, fmt.Errorf("finding the working directory: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	return func(cause error) {
		if ctx.Err() != nil {
			klog.Errorf("Stopping: %v", cause)
			klog.Flush()
			fmt.Fprintln(os.Stderr, progress.ErrorPrefix+cause.Error())
			os.Exit(1)
		}
		klog.Errorf("Restarting: %v", cause)
		klog.Flush()
		_ = os.Chdir(dir) // gone: only relative paths need it
		//nolint:gosec // the arguments are those that this program was started with
		err := syscall.Exec(self, os.Args, slices.Concat(os.Environ(), proxy, []string{restartedEnv + "=1"}))
		panic(fmt.Sprintf("restarting %s: %v, after: %v", self, err, cause))
	}, nil
}
