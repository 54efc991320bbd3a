//go:build linux

package containerd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"k8s.io/klog/v2"
)

const (
	maxLogSize  = 10 << 20
	logInterval = time.Minute
)

// truncateLog keeps the log below twice maxLogSize. containerd writes to the file itself, so that
// it can outlive Flyball. It appends, so the file can be truncated in place.
func truncateLog(ctx context.Context, file string) {
	tick := time.NewTicker(logInterval)
	defer tick.Stop()
	for {
		if err := rotate(file, maxLogSize); err != nil {
			klog.FromContext(ctx).Error(err, "Limiting containerd's log failed", "file", file)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// rotate copies file to file.1 and empties it, when it is larger than limit.
func rotate(file string, limit int64) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("rotating the log %s: %w", file, err)
		}
	}()
	info, err := os.Stat(file)
	if os.IsNotExist(err) || err == nil && info.Size() <= limit {
		return nil
	}
	if err != nil {
		return err
	}
	src, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	dst, err := os.OpenFile(file+".1", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, io.LimitReader(src, limit))
	if cerr := dst.Close(); err == nil {
		err = cerr
	}
	// On a full disk the space is more important than the old lines.
	if terr := os.Truncate(file, 0); err == nil {
		err = terr
	}
	return err
}

// lastLine returns the last line of a log, for an error message.
func lastLine(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return "(no log)"
	}
	defer func() { _ = f.Close() }()
	const tail = 4096
	if info, err := f.Stat(); err == nil && info.Size() > tail {
		_, _ = f.Seek(-tail, io.SeekEnd)
	}
	text, _ := io.ReadAll(f)
	text = bytes.TrimSpace(text)
	return string(text[bytes.LastIndexByte(text, '\n')+1:])
}
