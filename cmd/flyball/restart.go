//go:build linux

package main

import (
	"fmt"
	"os"
	"slices"
	"syscall"

	"k8s.io/klog/v2"
)

// restartedEnv is in the environment of a program that has restarted itself.
const restartedEnv = "FLYBALL_RESTARTED"

// isRestarted tells whether this program has restarted itself. It leaves nothing of that to children.
func isRestarted() bool {
	_, restarted := os.LookupEnv(restartedEnv)
	_ = os.Unsetenv(restartedEnv) // fails only for a name that no variable can have
	return restarted
}

// restart returns what starts this program again, as it was started and in the same process, so that whoever waits for that,
// a shell or a service manager, notices nothing. To all others it is as if it had been killed and started: descriptors and
// locks are given up, Pods and the container runtime run on. proxy is what was taken out of the environment.
func restart(proxy []string) (func(error), error) {
	dir, err := os.Getwd() // to which paths among the arguments are relative
	if err != nil {
		return nil, fmt.Errorf("finding the working directory: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	return func(cause error) {
		klog.Errorf("Restarting: %v", cause)
		klog.Flush()
		_ = os.Chdir(dir) // gone: only relative paths need it
		err := syscall.Exec(self, os.Args, slices.Concat(os.Environ(), proxy, []string{restartedEnv + "=1"}))
		panic(fmt.Sprintf("restarting %s: %v, after: %v", self, err, cause))
	}, nil
}
