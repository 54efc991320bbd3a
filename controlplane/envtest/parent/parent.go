// Package parent notices that the process which started this one has ended. A test suite may die
// without stopping the programs that it has started.
//
// It imports next to nothing: Go initialises such packages first, so the parent is read before the
// packages of Kubernetes take their time, in which it may die.
package parent

import "os"

var pid = os.Getppid()

// Watch calls ended when the parent of this process has ended. It returns false if it does not
// watch, because this process was started to outlive its parent, or because its parent is the first
// process, which nobody outlives.
func Watch(ended func()) bool {
	if pid == 1 || detached() {
		return false
	}
	go func() {
		await()
		ended()
	}()
	return true
}
