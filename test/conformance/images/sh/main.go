// Command sh is /bin/sh of the image busybox: busybox, as in the original, because tests compare its messages; but Debian's
// is older, and drops variables with names like data-1, which Kubernetes allows. Where there is such a variable, it is bash,
// which hands them on. In the other images it is bash always: Debian's busybox runs its own nc and the like, whatever else is
// installed.
package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
)

var name = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func main() {
	shell := "/bin/busybox"
	for _, v := range os.Environ() {
		if n, _, _ := strings.Cut(v, "="); !name.MatchString(n) {
			shell = "/bin/bash-static"
		}
	}
	err := syscall.Exec(shell, os.Args, os.Environ())
	fmt.Fprintf(os.Stderr, "sh: starting %s: %v\n", shell, err)
	os.Exit(126)
}
