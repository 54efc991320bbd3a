package main

import (
	"testing"

	"flyball.dev/test/conformance/results"
)

// A mistake in a file of reasons costs the results of an hour otherwise.
func TestReasonFiles(t *testing.T) {
	for _, part := range results.Parts() {
		reasons, err := results.ReadReasons(part.Suite + ".yaml")
		if err != nil {
			t.Error(err)
		}
		if len(reasons) == 0 {
			t.Errorf("%s.yaml has no reasons: is it there?", part.Suite)
		}
	}
}
