package results

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flyball.dev/test/conformance/suite"
)

var outcomes = []suite.Outcome{
	{Name: "[sig-apps] a [Conformance]", State: suite.Passed, Seconds: 2},
	{Name: "[sig-node] b [Conformance]", State: suite.Failed, Message: "timed out\nafter 30 s"},
	{Name: "[sig-node] c [Conformance]", State: suite.Skipped, Message: "needs two nodes"},
}

// What Markdown writes, Read reads: otherwise the ratchet would be blind.
func TestRatchet(t *testing.T) {
	file := filepath.Join(t.TempDir(), "RESULTS.md")
	known, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if lost := known.Lost(outcomes); lost != nil {
		t.Errorf("nothing is recorded, and yet these are lost: %v", lost)
	}
	if err := os.WriteFile(file, []byte(Record{Date: time.Now(), Outcomes: outcomes}.Markdown()), 0o600); err != nil {
		t.Fatal(err)
	}
	if known, err = Read(file); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		reason string
		now    []suite.Outcome
		want   []string
	}{
		"same":      {"nothing changed", outcomes, nil},
		"better":    {"a failing test passes now", []suite.Outcome{{Name: outcomes[1].Name, State: suite.Passed}}, nil},
		"lost":      {"a passing test fails now", []suite.Outcome{{Name: outcomes[0].Name, State: suite.Failed}}, []string{outcomes[0].Name}},
		"skipped":   {"a passing test is skipped now", []suite.Outcome{{Name: outcomes[0].Name, State: suite.Skipped}}, []string{outcomes[0].Name}},
		"elsewhere": {"not a conformance test", []suite.Outcome{{Name: "[sig-apps] z", State: suite.Failed}}, nil},
	} {
		if diff := cmp.Diff(c.want, known.Lost(c.now)); diff != "" {
			t.Errorf("%s: %s: -want +got:\n%s", name, c.reason, diff)
		}
	}
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	run := Run{Version: "v1", Suite: "conformance", Tests: 3}
	open := func(run Run, fresh bool, want int) *Journal {
		t.Helper()
		j, err := Open(path, run, fresh)
		if err != nil {
			t.Fatal(err)
		}
		if len(j.Outcomes) != want {
			t.Fatalf("the journal has %d outcomes, want %d", len(j.Outcomes), want)
		}
		return j
	}
	j := open(run, false, 0)
	for _, o := range outcomes[:2] {
		if err := j.Add(o); err != nil {
			t.Fatal(err)
		}
	}
	_ = j.Close(false)

	// A run that was killed in the middle of a line goes on.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.WriteString(`{"name":"cut`)
	_ = f.Close()
	j = open(run, false, 2)
	if diff := cmp.Diff(outcomes[:2], j.Outcomes); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if err := j.Add(outcomes[2]); err != nil {
		t.Fatal(err)
	}
	_ = j.Close(false)
	_ = open(run, false, 3).Close(false)

	// Outcomes of another build of Flyball say nothing about this one.
	rebuilt := run
	rebuilt.Product = "another"
	_ = open(rebuilt, false, 0).Close(false)

	other := run
	other.Focus = "Deployment"
	_ = open(other, false, 0).Close(true)
	if _, err := os.Stat(path); err == nil {
		t.Error("the journal of a complete run is still there")
	}
}

func TestReference(t *testing.T) {
	path := filepath.Join(t.TempDir(), "reference.json")
	if err := WriteReference(path, "v1", outcomes, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := WriteReference(path, "v1", []suite.Outcome{{Name: "[sig-cli] d", State: suite.Failed, Message: "no"}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	r, err := ReadReference(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{outcomes[1].Name: "timed out after 30 s", "[sig-cli] d": "no"}, r.Failing); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
