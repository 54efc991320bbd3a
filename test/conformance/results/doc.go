// Package results keeps what became of the tests: each outcome as soon as it is known, so that an interrupted run can go
// on (journal.go); a JUnit file (junit.go); and RESULTS.md, with a part about conformance (record.go) and one about each other
// suite that has results (part.go). It keeps the ratchet: no test that is recorded as passing may fail. RESULTS.md lists what
// does not pass of conformance, and a file such as kind.txt of another suite; reasons.go reads why. It is the only writer of
// these files but the reasons.
package results
