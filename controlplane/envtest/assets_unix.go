//go:build unix

package envtest

import (
	"io/fs"
	"os"
	"syscall"
)

const extension = ""

// ensure makes path a link to executable.
func ensure(path, executable string) error {
	if target, err := os.Readlink(path); err == nil && target == executable {
		return nil
	}
	return replace(path, func(temporary string) error { return os.Symlink(executable, temporary) })
}

func ownedByMe(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid()
}
