package space

import (
	"context"
	"os"
	"path/filepath"
	"time"
)

// Await returns nil once there is enough space to start, or ctx's error. It calls short with an
// Error if there is not.
func Await(ctx context.Context, dir string, short func(error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for reported := false; ; reported = true {
		there := nearestExisting(dir)
		free, err := Stat(there)
		if err != nil {
			return nil // the next write there returns a better error
		}
		missing := shortage(dir, free, func() error { return Probe(there, Enough) })
		if missing == nil {
			return nil
		}
		if !reported {
			short(missing)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// shortage returns an Error if there is not enough space to start. Other errors of probe, for
// example of a read-only file system, are left to the next write: waiting does not help against
// them.
func shortage(dir string, free Free, probe func() error) error {
	if free.below(Enough, enoughInodes) {
		return &Error{Dir: dir, Free: free}
	}
	if err := probe(); IsNoSpace(err) {
		return &Error{Dir: dir, Free: free, Err: err}
	}
	return nil
}

// nearestExisting returns dir, or the nearest directory above it that exists.
func nearestExisting(dir string) string {
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}
