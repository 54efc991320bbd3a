// Package help answers `kube-apiserver --help` and `etcd --help` from a file, before the rest of
// the program is even initialised. envtest asks both each time it starts, to see which flags there
// are, and would wait a tenth of a second for a hundred API groups to be set up that nobody uses.
//
// The file is beside the program, which wrote it, and is valid as long as it has the program's time
// of modification. Go initialises a package once its imports are, in the order of import paths. So
// this package imports os alone, and runs before the slow ones.
package help

import "os"

// Flag is what envtest passes. Slow means the same and is never answered from a file.
const (
	Flag = "--help"
	Slow = "-h"
)

func init() { //nolint:gochecknoinits // main begins when all packages are initialised, and that is what takes the time
	if len(os.Args) != 2 || os.Args[1] != Flag || isTerminal(os.Stdout) {
		return
	}
	if !Current(os.Args[0]) {
		return
	}
	text, err := os.ReadFile(File(os.Args[0]))
	if err != nil {
		return
	}
	if _, err := os.Stdout.Write(text); err == nil {
		os.Exit(0)
	}
}

// Current says whether what is stored for the program at path, or for what that links to, is its
// own.
func Current(path string) bool {
	program, err := os.Stat(path)
	if err != nil {
		return false
	}
	stored, err := os.Stat(File(path))
	return err == nil && stored.ModTime().Equal(program.ModTime())
}

// File is where the help of the program at path is stored.
func File(path string) string { return path + ".help" }

// isTerminal says whether f wraps lines for somebody to read.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
