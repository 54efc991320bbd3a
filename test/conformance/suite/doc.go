// Package suite runs upstream's end-to-end suite: it builds e2e.test and kubectl, lists the tests, and runs each one in a
// process of its own, several at a time where the suite allows it.
//
// A process per test makes the log of a test its own, lets an interrupted run go on at any test, and bounds how long one
// may hang. What became of the tests is for package results to keep.
package suite
