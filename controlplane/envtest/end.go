package envtest

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"flyball.dev/controlplane/envtest/parent"
)

const (
	// ParentVariable says how a program notices that the process which started it has ended. If it
	// is empty, the program watches its parent. If it is "stdin", as package flyballtest sets it,
	// the end of standard input counts too. If it is "ignore", the program goes on.
	ParentVariable = "FLYBALL_ENVTEST_PARENT"
	// DirectoryVariable names the directory of a flyballtest cluster, which is removed then: the
	// test cannot do it any more.
	DirectoryVariable = "FLYBALL_ENVTEST_DIRECTORY"

	// removeTimeout is how long to try to remove directories.
	removeTimeout = 5 * time.Second
)

// How the names of directories begin that package flyballtest and envtest make for one run and
// remove after it. No others are removed.
const (
	flyballtestPrefix = "flyballtest-"
	envtestPrefix     = "k8s_test_framework_"
)

// EndWithParent ends this process when that ends which started it, unless the environment asks for
// something else. The flags of the program, args, name the directories that envtest has made for
// it.
func EndWithParent(args []string) error {
	value := os.Getenv(ParentVariable)
	if !slices.Contains([]string{"", "stdin", "ignore"}, value) {
		return fmt.Errorf("reading %s=%q: allowed is \"ignore\", to go on when the process has ended that started this one; without it this one ends, too", ParentVariable, value)
	}
	if value == "ignore" {
		return nil
	}
	directories := left(os.Getenv(DirectoryVariable), args)
	end := func() {
		remove(directories)
		os.Exit(0)
	}
	parent.Watch(end)
	if value == "stdin" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			end()
		}()
	}
	return nil
}

// left returns the directories that nobody would remove any more.
func left(flyballtest string, args []string) []string {
	var directories []string
	if strings.HasPrefix(filepath.Base(flyballtest), flyballtestPrefix) {
		directories = append(directories, flyballtest)
	}
	for _, arg := range args {
		flag, value, _ := strings.Cut(arg, "=")
		if (flag == "--data-dir" || flag == "--cert-dir") && filepath.IsAbs(value) && strings.HasPrefix(filepath.Base(value), envtestPrefix) {
			directories = append(directories, value)
		}
	}
	return directories
}

// remove removes directories in which this process and others may write until they end.
func remove(directories []string) {
	for _, dir := range directories {
		for began := time.Now(); os.RemoveAll(dir) != nil && time.Since(began) < removeTimeout; {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// TokenVariable holds the token for checkpoints of a kube-apiserver. Package flyballtest sets it.
const TokenVariable = "FLYBALL_ENVTEST_TOKEN" //nolint:gosec // the name of a variable

// AwaitParent returns true when the process that started this one writes a line to standard input,
// and false if it ends instead.
func AwaitParent() bool {
	var line [1]byte // no more than the line: EndWithParent reads on
	for line[0] != '\n' {
		if _, err := os.Stdin.Read(line[:]); err != nil {
			return false
		}
	}
	return true
}
