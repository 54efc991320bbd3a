package plugins

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// dirMode is upstream's: only root registers plugins.
const dirMode = 0o750

// scan returns the sockets in dir and below, and watches every directory on the way. A directory is
// watched before it is read, so that nothing appears between the two unnoticed. Names that begin
// with a dot are for files that are not ready yet, as in upstream's kubelet.
func scan(dir string, watch *fsnotify.Watcher) (map[string]file, error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fmt.Errorf("making the directory of plugins' registration sockets: %w", err)
	}
	found := map[string]file{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // gone meanwhile
		case err != nil:
			return err
		case path != dir && strings.HasPrefix(e.Name(), "."):
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case e.IsDir():
			if err := watch.Add(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		case e.Type() != fs.ModeSocket:
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return nil //nolint:nilerr // gone meanwhile
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			found[path] = file{stat.Ino, info.ModTime()}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking for plugins' registration sockets: %w", err)
	}
	return found, nil
}
