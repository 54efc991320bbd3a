package flyballtest

import (
	"context"
	"fmt"
	"os"
	"time"

	"flyball.dev/internal/filelock"
)

// lockPoll is how often a lock is tried while another process holds it.
const lockPoll = 100 * time.Millisecond

// lock takes a lock that tests of several processes share. The operating system releases it when
// the process dies. The file is never removed: a process that has opened it before would hold a
// lock that others do not see.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of the program's directory: %w", err)
	}
	for {
		held, err := filelock.Try(f)
		if err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("locking %s: %w; set XDG_CACHE_HOME to a directory on a file system that has locks", path, err)
		}
		if held {
			return func() { _ = f.Close() }, nil // releases the lock
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("waiting for another test that builds %s and holds the lock %s: %w", programPackage, path, context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
}
