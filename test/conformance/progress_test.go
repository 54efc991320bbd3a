package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"flyball.dev/test/conformance/suite"
)

// The line tells what is done, what failed, what runs and how much is left.
func TestProgress(t *testing.T) { synctest.Test(t, testProgress) }

func testProgress(t *testing.T) {
	tests := []suite.Test{{Name: "a"}, {Name: "b"}, {Name: "hangs"}, {Name: "alone", Serial: true}}
	p := newProgress(tests, 2, map[string]float64{"a": 10, "b": 30, "hangs": 50, "alone": 300})
	var out bytes.Buffer
	p.out, p.terminal = &out, false
	p.started("", tests[0])
	p.started("a", tests[1]) // in the process of the one before
	p.started("", tests[2])
	p.live["hangs"] = time.Now().Add(-5 * time.Minute)
	p.ended(suite.Outcome{Name: "a", State: suite.Passed})
	p.ended(suite.Outcome{Name: "b", State: suite.Failed, Message: "no answer"})
	p.shown = time.Time{}
	p.show(false)
	for _, want := range []string{"✗ b (0 s)\n    no answer\n", "2 of 4 done, 1 failed, 0 skipped, 1 running", "about 5m30s left; hangs since 5m0s"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in what is shown:\n%s", want, &out)
		}
	}
}

// What is known of this machine counts more than what is known of all.
func TestSeconds(t *testing.T) {
	here, anywhere := filepath.Join(t.TempDir(), "here.json"), filepath.Join(t.TempDir(), "long.json")
	if err := keepLong(anywhere, []suite.Outcome{{Name: "long", Seconds: 100.4}, {Name: "longer", Seconds: 300}, {Name: "short", Seconds: 2}}); err != nil {
		t.Fatal(err)
	}
	// A run of other tests leaves these in the file, and a test that has become short is taken out.
	if err := keepLong(anywhere, []suite.Outcome{{Name: "was long", Seconds: 100}, {Name: "longer", Seconds: 300}}); err != nil {
		t.Fatal(err)
	}
	if err := keepLong(anywhere, []suite.Outcome{{Name: "was long", Seconds: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := keepSeconds(here, readSeconds(here), []suite.Outcome{{Name: "long", Seconds: 50}}); err != nil {
		t.Fatal(err)
	}
	got := readSeconds(here, anywhere)
	if diff := cmp.Diff(map[string]float64{"long": 50, "longer": 300}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if guess(got, "new [Slow]") < guess(got, "long") || guess(got, "new") > longSeconds {
		t.Error("a test that is called slow is, and another is not")
	}
}
