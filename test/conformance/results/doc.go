// Package results keeps what became of the tests: each outcome as soon as it is known, so that an interrupted run can go
// on (journal.go); a JUnit file (junit.go); and RESULTS.md, with a part about conformance (record.go) and one about what
// upstream's kind job runs (kind.go). It keeps the ratchet: no test that is recorded as passing may fail. RESULTS.md lists
// what does not pass of conformance, and kind.txt of the kind job. It is the only writer of both files.
package results
