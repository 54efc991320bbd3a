package envtest

import (
	"fmt"
	"io"
	"io/fs"
	"os"
)

const extension = ".exe"

// ensure makes path the same file as executable, or a copy of it on another volume: links that are
// files of their own are for administrators.
func ensure(path, executable string) error {
	want, err := os.Stat(executable)
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	if got, err := os.Stat(path); err == nil && (os.SameFile(got, want) || got.Size() == want.Size() && !got.ModTime().Before(want.ModTime())) {
		return nil
	}
	return replace(path, func(temporary string) error {
		if os.Link(executable, temporary) == nil {
			return nil
		}
		return copyFile(temporary, executable)
	})
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copying: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return fmt.Errorf("copying: %w", err)
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return fmt.Errorf("copying: %w", err)
	}
	return out.Close()
}

// ownedByMe: the directory for temporary files is the user's own here.
func ownedByMe(fs.FileInfo) bool { return true }
