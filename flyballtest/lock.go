package flyballtest

import (
	"context"
	"fmt"
	"os"
	"time"
)

// lockLook is how often a lock is tried that somebody else has.
const lockLook = 100 * time.Millisecond

// lock takes a lock that tests of several processes share. It is the operating system's, which gives it back when its
// owner dies. The file stays: a process that opened it before it was removed would hold a lock that nobody else sees.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of the folder of the program: %w", err)
	}
	for {
		held, err := tryLock(f)
		if err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("locking %s: %w; set XDG_CACHE_HOME to a directory on a file system that has locks", path, err)
		}
		if held {
			return func() { _ = f.Close() }, nil // gives the lock back
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("waiting for another test that builds %s and has locked %s: %w", programPackage, path, context.Cause(ctx))
		case <-time.After(lockLook):
		}
	}
}
