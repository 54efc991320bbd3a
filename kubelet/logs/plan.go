package logs

import (
	"slices"
	"strings"
)

const (
	compressed = ".gz"
	unfinished = ".tmp"
)

// Policy says when a log is rotated, and how many files of it are kept.
type Policy struct {
	MaxSize  int64 // of a log in bytes
	MaxFiles int   // of one container, the one that is written included; at least 2
}

// DefaultPolicy is upstream's.
var DefaultPolicy = Policy{MaxSize: 10 << 20, MaxFiles: 5}

// log is one container's log on the disk.
type log struct {
	path    string   // of the file that the runtime writes
	size    int64    // in bytes; -1: there is no such file
	rotated []string // the paths of the rotated files, in any order
}

// rotation is what is to be done to a log, in this order. A crash may follow each step: the next
// Reconcile finishes the rotation.
type rotation struct {
	remove, compress []string
	rename           bool
	reopen           bool // the runtime begins a new log
}

// due says whether a log needs a rotation, if its container runs.
func due(l log, p Policy) bool {
	return l.size >= p.MaxSize || l.size < 0 && len(l.rotated) > 0
}

// plan returns what is to be done to a log that is due.
func plan(l log, p Policy) rotation {
	if l.size < 0 {
		return rotation{reopen: true} // we crashed between renaming and reopening
	}
	r := rotation{rename: true, reopen: true}
	var kept []string
	for _, path := range slices.Sorted(slices.Values(l.rotated)) { // by time
		if strings.HasSuffix(path, unfinished) || slices.Contains(l.rotated, path+compressed) {
			r.remove = append(r.remove, path) // from a compression that did not end, or that did
			continue
		}
		kept = append(kept, path)
	}
	// The file that is renamed now and the one that is written next are two more.
	tooMany := max(0, len(kept)-max(0, p.MaxFiles-2))
	r.remove = append(r.remove, kept[:tooMany]...)
	for _, path := range kept[tooMany:] {
		if !strings.HasSuffix(path, compressed) {
			r.compress = append(r.compress, path)
		}
	}
	return r
}
