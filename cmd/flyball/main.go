// Command flyball is a complete Kubernetes in one program.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"flyball.dev/host/progress"
)

// The first thread of the process is what /proc/self and /proc/net show of it. The host checks give threads to namespaces
// of their own, and must not get this one: a port in use would look free.
func init() { runtime.LockOSThread() } //nolint:gochecknoinits // only an initialiser surely runs on the first thread

func main() {
	err := run(context.Background(), os.Args)
	if err == nil {
		return
	}
	if !errors.Is(err, errSilent) {
		fmt.Fprintln(os.Stderr, progress.ErrorPrefix+err.Error())
	}
	os.Exit(1)
}
