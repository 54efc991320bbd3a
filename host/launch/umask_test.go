//go:build linux

package launch

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestUmask: what is made is readable by whom it is for, whatever the umask of the shell.
func TestUmask(t *testing.T) {
	before := unix.Umask(0)
	defer unix.Umask(before)
	for _, shell := range []int{0, 0o022, 0o027, 0o077} {
		unix.Umask(shell)
		setUmask()
		if now := unix.Umask(0); now != 0o022 {
			t.Errorf("started with umask %#o, it has %#o", shell, now)
		}
	}
}
