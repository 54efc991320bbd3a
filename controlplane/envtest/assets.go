package envtest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"flyball.dev/controlplane/envtest/help"
)

// Programs are those that envtest starts.
var Programs = []string{"kube-apiserver", "etcd", "kubectl"}

// Assets makes sure that there is a folder with the three programs, each of them this executable,
// and returns its absolute path. It may be called by several processes at once. Every executable
// has a folder of its own, below the user's cache directory.
func Assets() (string, error) {
	executable, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding this program: %w", err)
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(executable))
	dir := filepath.Join(cache, "envtest", hex.EncodeToString(sum[:6]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making the folder of the programs: %w; set XDG_CACHE_HOME to a directory that you may write to", err)
	}
	for _, name := range Programs {
		if err := ensure(filepath.Join(dir, name+extension), executable); err != nil {
			return "", fmt.Errorf("putting %s into %s: %w", name, dir, err)
		}
	}
	for _, name := range Programs[:2] {
		storeHelp(filepath.Join(dir, name+extension))
	}
	return dir, nil
}

// storeHelp lets the program answer at once when envtest asks it for its flags. Without that it
// answers all the same.
func storeHelp(path string) {
	program, err := os.Stat(path)
	if err != nil || help.Current(path) {
		return
	}
	if text, err := exec.Command(path, help.Slow).CombinedOutput(); err == nil {
		_ = replace(help.File(path), func(temporary string) error {
			return errors.Join(os.WriteFile(temporary, text, 0o600), os.Chtimes(temporary, time.Time{}, program.ModTime()))
		})
	}
}

// cacheDir is Flyball's directory in the user's cache directory. A user without a home, as in many
// a container, gets one below the directory for temporary files, if nobody else was there first.
func cacheDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err == nil && filepath.IsAbs(cache) {
		dir := filepath.Join(cache, "flyball")
		if err = os.MkdirAll(dir, 0o755); err == nil {
			return dir, nil
		}
	}
	dir := filepath.Join(os.TempDir(), "flyball-"+strconv.Itoa(os.Getuid()))
	if mkdirErr := os.Mkdir(dir, 0o700); mkdirErr != nil && !errors.Is(mkdirErr, fs.ErrExist) {
		return "", fmt.Errorf("finding the user's cache directory: %w; set XDG_CACHE_HOME to a directory that you may write to", errors.Join(err, mkdirErr))
	}
	info, err := os.Lstat(dir)
	if err == nil && (!info.IsDir() || !ownedByMe(info)) {
		err = fmt.Errorf("%s belongs to somebody else", dir)
	}
	if err != nil {
		return "", fmt.Errorf("making a directory for temporary programs: %w; set XDG_CACHE_HOME to a directory that you may write to", err)
	}
	return dir, nil
}

// replace puts what place makes at path atomically: a process that starts path meanwhile gets the
// old or the new one.
func replace(path string, place func(temporary string) error) error {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".new-") // a name that no other process takes
	if err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	temporary := filepath.Join(dir, filepath.Base(path))
	if err := place(temporary); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
