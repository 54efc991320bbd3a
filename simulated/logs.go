package simulated

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// logFiles are the logs of containers, each a file in CRI's format. It is written
// when somebody asks for it, so that a node without readers touches no disk.
type logFiles struct {
	// dir does not exist before the first log does.
	dir string

	mu      sync.Mutex
	written map[string]string // what each log says, by container ID
}

func (l *logFiles) path(id string) string { return filepath.Join(l.dir, id+".log") }

// write makes the log of a container say what it is to say: everything at begun.
func (l *logFiles) write(id, text string, begun time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if said, ok := l.written[id]; ok && said == text {
		return nil
	}
	var out bytes.Buffer
	for line := range strings.Lines(text) {
		fmt.Fprintf(&out, "%s stdout F %s\n", begun.Format(time.RFC3339Nano), strings.TrimSuffix(line, "\n"))
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
	if err := os.RemoveAll(l.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the logs of simulated containers: %w", err)
	}
	return nil
}
