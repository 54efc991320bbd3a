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
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("reading this process's memory map: %w", err)
	}
	defer maps.Close()
	for s := bufio.NewScanner(maps); s.Scan(); {
		var from, to uintptr
		var mode string
		_, err := fmt.Sscanf(s.Text(), "%x-%x %s", &from, &to, &mode)
		// Only what nobody can have written to: anything else would come back as it was on disk.
		if err != nil || !strings.HasSuffix(s.Text(), " "+exe) || (mode != "r-xp" && mode != "r--p") {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("dropping the program's unused pages: %w", errno)
		}
	}
	return nil
}
