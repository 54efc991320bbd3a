// Package results keeps what became of the tests: each outcome as soon as it is known, so that an interrupted run can go
// on (journal.go); a JUnit file (junit.go); RESULTS.md and the ratchet, which is that no test that RESULTS.md records as
// passing may fail (record.go). It is the only writer of RESULTS.md.
package results
