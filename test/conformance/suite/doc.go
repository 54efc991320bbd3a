// Package suite runs upstream's end-to-end suite: it builds e2e.test and kubectl, lists the tests, and runs them, several
// processes at a time where the suite allows it.
//
// Short tests share a process, because one needs a second of CPU to begin; a test that may take longer has its own. A test
// that takes its process down costs the others nothing: they are run again. What became of the tests is for package results
// to keep.
package suite
