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

// Settle releases memory that only starting needed, about a quarter of the resident set: the heap's
// free pages, and pages of the program itself. The initialization of a hundred API groups touches
// nearly all of those, and running touches half. They are dropped from this process and not from
// the page cache, so that using one again costs a minor fault. Call it once, when everything is up.
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
		// Only pages that were never written, not even by a relocating loader: a dropped page is
		// read from disk again. proc_pid_smaps(5): Anonymous counts the pages that no longer belong
		// to the file.
		if !program || !strings.HasPrefix(line, "Anonymous:") || !strings.HasSuffix(line, " 0 kB") {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("dropping the program's unused pages: %w", errno)
		}
	}
	return nil
}
