package simulated

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// logFiles are the logs of containers, files in CRI's format. A file is written when it is requested,
// so that without readers nothing is written to disk.
type logFiles struct {
	// dir is created with the first log.
	dir string

	mu      sync.Mutex
	written map[string]string // text by container ID
}

func (l *logFiles) path(id string) string { return filepath.Join(l.dir, id+".log") }

// write writes the log of a container. All lines have the same time.
func (l *logFiles) write(id, text string, at time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if written, ok := l.written[id]; ok && written == text {
		return nil
	}
	var out bytes.Buffer
	for line := range strings.Lines(text) {
		fmt.Fprintf(&out, "%s stdout F %s\n", at.Format(time.RFC3339Nano), strings.TrimSuffix(line, "\n"))
	}
	err := os.MkdirAll(l.dir, 0o700)
	if err == nil {
		err = os.WriteFile(l.path(id), out.Bytes(), 0o600)
	}
	if err != nil {
		return fmt.Errorf("writing the log of a simulated container: %w", err)
	}
	l.written[id] = text
	return nil
}

func (l *logFiles) remove(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.written[id]; ok {
		delete(l.written, id)
		_ = os.Remove(l.path(id))
	}
}

func (l *logFiles) removeAll() error {
	if err := os.RemoveAll(l.dir); err != nil {
		return fmt.Errorf("removing the logs of simulated containers: %w", err)
	}
	return nil
}
