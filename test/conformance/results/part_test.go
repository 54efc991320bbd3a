package results

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flyball.dev/test/conformance/suite"
)

var kind = []suite.Outcome{
	{Name: "[sig-apps] a [Conformance]", State: suite.Passed},
	{Name: "[sig-cli] d", State: suite.Passed},
	{Name: "[sig-cli] e", State: suite.Failed, Message: "no"},
	{Name: "[sig-cli] f", State: suite.Skipped, Message: "Only supported for providers [gce]"},
}

func kindPart(t *testing.T) Part {
	t.Helper()
	p, ok := PartOf(suite.Kind)
	if !ok {
		t.Fatal("there is no part for the kind job")
	}
	return p
}

// No test is left out silently: each that was skipped is in RESULTS.md, below its reason, whether a list of ours or the suite
// itself took it out.
func TestSkippedHaveReasons(t *testing.T) {
	reasons, err := ReadReasons(writeFile(t, "- tests: nfs\n  skip: true\n  reason: no NFS here\n- test: \"[sig-cli] e\"\n  reason: no printer\n"))
	if err != nil {
		t.Fatal(err)
	}
	run, skipped := reasons.Skip([]suite.Test{{Name: "[sig-storage] nfs a"}, {Name: "[sig-cli] e"}, {Name: "[sig-storage] nfs3 b"}})
	if diff := cmp.Diff([]suite.Test{{Name: "[sig-cli] e"}}, run); diff != "" {
		t.Errorf("what is to run: -want +got:\n%s", diff)
	}
	record := PartRecord{Part: kindPart(t), Outcomes: append(skipped, kind...), Reasons: reasons}
	want := "### Skipped, and why\n\n" +
		"<details><summary>2: no NFS here</summary>\n\n- `[sig-storage] nfs a`\n- `[sig-storage] nfs3 b`\n\n</details>\n\n" +
		"<details><summary>1: the suite itself: Only supported for providers [gce]</summary>\n\n- `[sig-cli] f`\n"
	if got := record.Markdown(); !strings.Contains(got, want) {
		t.Errorf("want %s\nin %s", want, got)
	}
	if got := reasons.Unneeded(record.Outcomes); got != nil {
		t.Errorf("unneeded: %v", got)
	}
	if diff := cmp.Diff([]string{"nfs"}, reasons.Unneeded(kind)); diff != "" {
		t.Errorf("an entry that takes out no test is of no use: -want +got:\n%s", diff)
	}
}

func writeFile(t *testing.T, body string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Each kind of run writes its part of RESULTS.md and loses nothing of the other's, in whatever order they come.
func TestParts(t *testing.T) {
	dir := t.TempDir()
	file, list := filepath.Join(dir, "RESULTS.md"), filepath.Join(dir, "kind.txt")
	reasons := Reasons{{Test: "[sig-cli] e", Reason: "there is\nno printer"}}
	writeKind := func() {
		t.Helper()
		if err := (PartRecord{Part: kindPart(t), Date: time.Unix(0, 0), Version: "v1", Product: "p", Outcomes: kind, Reasons: reasons}).Write(file, list); err != nil {
			t.Fatal(err)
		}
	}
	writeConformance := func() {
		t.Helper()
		if err := (Record{Date: time.Unix(0, 0), Version: "v1", Product: "p", Nodes: 2, Outcomes: outcomes}).Write(file); err != nil {
			t.Fatal(err)
		}
	}
	writeKind()
	if known, err := Read(file); err != nil || known.Lost(outcomes) != nil {
		t.Errorf("nothing is recorded of conformance, and yet something is lost (error: %v)", err)
	}
	writeConformance()
	both, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		writeKind()
		writeConformance()
	}
	again, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(both), string(again)); diff != "" {
		t.Errorf("the same runs write something else: -want +got:\n%s", diff)
	}
	for _, want := range []string{
		"- passed: **1 of 3**", "- `[sig-node] b [Conformance]`\n  timed out after 30 s\n",
		"- **2 passed, 1 failed, 1 skipped**", "| cli | 1 | 1 | 1 |", "### Failing, and why\n\n- `[sig-cli] e`\n  there is no printer\n",
	} {
		if !strings.Contains(string(both), want) {
			t.Errorf("%q is not in RESULTS.md:\n%s", want, both)
		}
	}
	if strings.Contains(string(both), "[sig-cli] d") {
		t.Errorf("a test of the kind job that passed is in RESULTS.md:\n%s", both)
	}
}

func TestKindRatchet(t *testing.T) {
	known, err := kindPart(t).Read(filepath.Join(t.TempDir(), "kind.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if lost := known.Lost(kind); lost != nil {
		t.Errorf("nothing is recorded, and yet these are lost: %v", lost)
	}
	if known, err = kindPart(t).Read(writeFile(t, PartRecord{Part: kindPart(t), Outcomes: kind}.List())); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		reason string
		now    []suite.Outcome
		want   []string
	}{
		"same":      {"nothing changed", kind, nil},
		"better":    {"a failing test passes now", []suite.Outcome{{Name: "[sig-cli] e", State: suite.Passed}}, nil},
		"lost":      {"a passing test fails now", []suite.Outcome{{Name: "[sig-cli] d", State: suite.Failed}}, []string{"[sig-cli] d"}},
		"skipped":   {"a passing test is skipped now", []suite.Outcome{{Name: "[sig-cli] d", State: suite.Skipped}}, []string{"[sig-cli] d"}},
		"elsewhere": {"the kind job does not run it", []suite.Outcome{{Name: "[sig-cli] z [Serial]", State: suite.Failed}}, nil},
	} {
		if diff := cmp.Diff(c.want, known.Lost(c.now)); diff != "" {
			t.Errorf("%s: %s: -want +got:\n%s", name, c.reason, diff)
		}
	}
	if _, err := kindPart(t).Read(writeFile(t, "[sig-cli] d\n")); err == nil || !strings.Contains(err.Error(), `"[sig-cli] d" begins neither`) {
		t.Errorf("a line without a state: got error %v", err)
	}
}

func TestReasons(t *testing.T) {
	reasons, err := ReadReasons(writeFile(t, `
- test: "[sig-cli] e"
  reason: no printer
- tests: \[sig-network\] .* IPv6
  reason: the host has no IPv6
- tests: \[sig-network\]
  reason: any other
- test: "[sig-cli] d"
  reason: not any more
`))
	if err != nil {
		t.Fatal(err)
	}
	now := append([]suite.Outcome{
		{Name: "[sig-network] Services IPv6", State: suite.Failed},
		{Name: "[sig-node] x", State: suite.Failed},
		{Name: "[sig-cli] ee", State: suite.Failed},
	}, kind...)
	if got, want := reasons.Of(now[0].Name), "the host has no IPv6"; got != want {
		t.Errorf("the reason of %s is %q, want %q: the first that fits", now[0].Name, got, want)
	}
	if diff := cmp.Diff([]string{"[sig-cli] ee", "[sig-node] x"}, reasons.Missing(now)); diff != "" {
		t.Errorf("missing: -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{`\[sig-network\]`, "[sig-cli] d"}, reasons.Unneeded(now)); diff != "" {
		t.Errorf("unneeded: -want +got:\n%s", diff)
	}
	for name, c := range map[string]struct{ text, want string }{
		"no reason":     {"- test: a", "entry 1 must have a reason"},
		"no test":       {"- {test: a, reason: b}\n- reason: c", "entry 2 must have"},
		"both":          {"- {test: a, tests: b, reason: c}", "entry 1 must have"},
		"bad pattern":   {"- {tests: '(', reason: c}", "entry 1: tests: error parsing regexp"},
		"unknown field": {"- {name: a, reason: c}", `unknown field "name"`},
	} {
		if _, err := ReadReasons(writeFile(t, c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want %q", name, err, c.want)
		}
	}
}
