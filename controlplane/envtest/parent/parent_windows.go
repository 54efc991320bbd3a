package parent

import (
	"errors"

	"golang.org/x/sys/windows"
)

// detached: Windows has nothing that says so.
func detached() bool { return false }

// await returns when the parent has ended. Its number stays what it was then, and may be another
// process's by now, which is younger than this one. It never returns if the system does not let
// this process open the parent.
func await() {
	parent, err := windows.OpenProcess(windows.SYNCHRONIZE|windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if errors.Is(err, windows.ERROR_INVALID_PARAMETER) { // there is no such process
		return
	}
	if err != nil {
		select {}
	}
	defer func() { _ = windows.CloseHandle(parent) }()
	if began(parent) > began(windows.CurrentProcess()) {
		return
	}
	if _, err := windows.WaitForSingleObject(parent, windows.INFINITE); err != nil {
		select {}
	}
}

// began is when a process was made, 0 if that cannot be read.
func began(process windows.Handle) int64 {
	var made, exited, kernel, user windows.Filetime
	if windows.GetProcessTimes(process, &made, &exited, &kernel, &user) != nil {
		return 0
	}
	return made.Nanoseconds()
}
