package simulated

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// logPath is the file with the log of a container, in CRI's format. It is written when it is
// requested, so that without readers nothing is written to disk.
func (r *runtime) logPath(c *container) string { return filepath.Join(r.logDir, c.id+".log") }

// writeLog writes the log of a container, unless the file has it. All lines have the same time. The
// caller holds the lock.
func (r *runtime) writeLog(c *container) error {
	if c.logged != nil && *c.logged == c.does.log {
		return nil
	}
	var out bytes.Buffer
	for line := range strings.Lines(c.does.log) {
		fmt.Fprintf(&out, "%s stdout F %s\n", c.started.Format(time.RFC3339Nano), strings.TrimSuffix(line, "\n"))
	}
	err := os.MkdirAll(r.logDir, 0o700)
	if err == nil {
		err = os.WriteFile(r.logPath(c), out.Bytes(), 0o600)
	}
	if err != nil {
		return fmt.Errorf("writing the log of a simulated container: %w", err)
	}
	c.logged = new(c.does.log)
	return nil
}
