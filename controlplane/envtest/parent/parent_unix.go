//go:build unix

package parent

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const interval = 250 * time.Millisecond

// detached reports whether this process was started to outlive its parent, as nohup and setsid do.
func detached() bool {
	session, err := unix.Getsid(0)
	return signal.Ignored(syscall.SIGHUP) || err == nil && session == os.Getpid()
}

// await returns when the parent has ended. The kernel then gives this process another one. That
// works on each Unix, unlike a signal on the parent's death, which Linux sends when the thread ends
// that started this process.
func await() {
	for now := os.Getppid(); now == pid || !orphaned(now); now = os.Getppid() {
		time.Sleep(interval)
	}
}

// orphaned reports whether this parent has replaced one that ended. On macOS a debugger becomes the
// parent of the process that it debugs, and orphans get the first process; on Linux they get a
// subreaper if there is one.
func orphaned(now int) bool { return runtime.GOOS == "linux" || now == 1 }
