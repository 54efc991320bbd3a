package logs

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// timestamp is the suffix of a rotated log.
const timestamp = "20060102-150405"

// act carries a rotation out.
func (r Rotator) act(ctx context.Context, container, path string, todo rotation, now time.Time) error {
	for _, old := range todo.remove {
		if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing an old log: %w", err)
		}
	}
	for _, old := range todo.compress {
		if err := compress(old); err != nil {
			return fmt.Errorf("compressing %s: %w", old, err)
		}
	}
	rotated := path + "." + now.Format(timestamp)
	if todo.rename {
		if err := os.Rename(path, rotated); err != nil {
			return fmt.Errorf("renaming a log: %w", err)
		}
	}
	if !todo.reopen {
		return nil
	}
	in := &runtimeapi.ReopenContainerLogRequest{ContainerId: container}
	if _, err := r.Runtime.ReopenContainerLog(ctx, in); err != nil {
		// The container goes on writing into the same file: rename it back. But the runtime may
		// have begun a new log, and only its answer was lost.
		if _, missing := os.Lstat(path); todo.rename && errors.Is(missing, fs.ErrNotExist) {
			err = errors.Join(err, os.Rename(rotated, path))
		}
		return fmt.Errorf("beginning a new log at %s: %w", path, err)
	}
	return nil
}

// compress replaces a file by a compressed one, which is complete whenever it has its name.
func compress(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	temporary := path + unfinished
	out, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, info.Mode())
	if err != nil {
		return err
	}
	zip := gzip.NewWriter(out)
	_, err = io.Copy(zip, in)
	if err = errors.Join(err, zip.Close(), out.Close()); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	if err := os.Rename(temporary, path+compressed); err != nil {
		return err
	}
	return os.Remove(path)
}
