//go:build linux

package controlplane

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// Settle gives memory back that only starting needed, about a quarter of what is resident: the heap's free pages, and the
// pages of the program itself, of which the initialisation of a hundred API groups touches nearly all and running touches
// half. Those are dropped from this process only and not from the page cache: what is needed again costs a minor fault.
// Call it once, when everything is up.
func Settle() error {
	debug.FreeOSMemory()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("reading this process's memory map: %w", err)
	}
	defer maps.Close()
	var from, to uintptr
	program := false
	for s := bufio.NewScanner(maps); s.Scan(); {
		line := s.Text()
		var a, b uintptr
		var mode string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &a, &b, &mode); n == 3 {
			from, to = a, b
			program = strings.HasSuffix(line, " "+exe) && !strings.Contains(mode, "w")
			continue
		}
		// Only what nobody has written to, not even a loader that relocates: a page that is dropped comes back as it is
		// on disk. proc_pid_smaps(5): Anonymous counts the pages that no longer belong to the file.
		if !program || !strings.HasPrefix(line, "Anonymous:") || !strings.HasSuffix(line, " 0 kB") {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("dropping the program's unused pages: %w", errno)
		}
	}
	return nil
}
