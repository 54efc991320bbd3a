//go:build linux

package launch

import (
	"math"

	"golang.org/x/sys/unix"
)

// LeaveShell makes the process independent of the shell that started it: of its umask, and of the
// files that it left open. A lock among these would live as long as the container runtime does.
func LeaveShell() {
	setUmask()
	_ = unix.CloseRange(listeningFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) // Linux 5.11; not worth failing for
}

// setUmask sets the umask of a service: files for containers, their users and log shippers get the
// mode with which they are made, and children such as the container runtime inherit it. Secrets do
// not depend on it: their files and directories are made for root alone.
func setUmask() { unix.Umask(0o022) }
