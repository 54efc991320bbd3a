package flyballtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var errTired = errors.New("tired")

// tryFor waits a moment for a lock.
func tryFor(t *testing.T, path string) error {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, errTired)
	defer cancel()
	unlock, err := lock(ctx, path)
	if err == nil {
		unlock()
	}
	return err
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := tryFor(t, path); !errors.Is(err, errTired) || !strings.Contains(err.Error(), path) {
		t.Errorf("locking what is locked: %v, want an error that names the file", err)
	}
	// As after a computer has slept.
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if err := tryFor(t, path); !errors.Is(err, errTired) {
		t.Errorf("locking what somebody has held for long: %v", err)
	}
	unlock()
	if err := tryFor(t, path); err != nil {
		t.Errorf("locking what was unlocked: %v", err)
	}
}

// TestLockOfOne: whoever had the file here has died, and all who wait for it see that at once.
func TestLockOfOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	var holders atomic.Int32
	var waiters sync.WaitGroup
	for range 4 {
		waiters.Go(func() {
			unlock, err := lock(t.Context(), path)
			if err != nil {
				t.Error(err)
				return
			}
			if n := holders.Add(1); n != 1 {
				t.Errorf("%d hold the lock", n)
			}
			holders.Add(-1)
			unlock()
		})
	}
	waiters.Wait()
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was replaced (%v): somebody may hold the lock of the old one", err)
	}
}
