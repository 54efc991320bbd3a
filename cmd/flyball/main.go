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

// /proc/self and /proc/net show the first thread of the process. The host checks move threads to
// namespaces of their own, and must not move this one: a port in use would seem free.
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
