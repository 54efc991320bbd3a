package logs

import (
	"slices"
	"strings"
)

const (
	compressed = ".gz"
	unfinished = ".tmp"
)

// Policy says when a log is put aside, and how many files of it are kept.
type Policy struct {
	// MaxSize of a log in bytes.
	MaxSize int64
	// MaxFiles of one container, the one being written included; at least 2.
	MaxFiles int
}

// DefaultPolicy is upstream's.
var DefaultPolicy = Policy{MaxSize: 10 << 20, MaxFiles: 5}

// log is one container's log as it lies on the disk.
type log struct {
	// path of the file that the runtime writes.
	path string
	// size in bytes; -1: there is no such file.
	size int64
	// rotated are the paths of the files put aside, in any order.
	rotated []string
}

// rotation is what is to be done to a log, in this order. Each step may be the last
// one before a crash: the next look finishes what was begun.
type rotation struct {
	remove, compress []string
	// putAside renames the log.
	putAside bool
	// reopen tells the runtime to begin a new one.
	reopen bool
}

// due says whether a log needs a rotation, if its container runs.
func due(l log, p Policy) bool {
	return l.size >= p.MaxSize || l.size < 0 && len(l.rotated) > 0
}

// plan returns what is to be done to a log that is due.
func plan(l log, p Policy) rotation {
	if l.size < 0 {
		return rotation{reopen: true} // we ended between putting aside and reopening
	}
	r := rotation{putAside: true, reopen: true}
	var kept []string
	for _, path := range slices.Sorted(slices.Values(l.rotated)) { // by time
		if strings.HasSuffix(path, unfinished) || slices.Contains(l.rotated, path+compressed) {
			r.remove = append(r.remove, path) // a compression did not end, or did
			continue
		}
		kept = append(kept, path)
	}
	// What is put aside now and what is written next are two more.
	tooMany := max(0, len(kept)-max(0, p.MaxFiles-2))
	r.remove = append(r.remove, kept[:tooMany]...)
	for _, path := range kept[tooMany:] {
		if !strings.HasSuffix(path, compressed) {
			r.compress = append(r.compress, path)
		}
	}
	return r
}
