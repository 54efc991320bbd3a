package results

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"flyball.dev/test/conformance/images"
	"flyball.dev/test/conformance/suite"
)

// Record is what RESULTS.md says of conformance.
type Record struct {
	Date    time.Time
	Version string // of Kubernetes
	Product string // what `flyball version` says
	Nodes   int
	// Outcomes are those of all conformance tests.
	Outcomes []suite.Outcome
	// Reference are the tests that upstream's own stack fails on the machine too, with the failure.
	Reference map[string]string
	// Unbuilt are the images that were not built.
	Unbuilt []images.Unbuilt
}

const (
	failing = "## Failing"
	notRun  = "## Skipped"
)

// Markdown renders the record.
func (r Record) Markdown() string {
	var b strings.Builder
	by := map[suite.State][]suite.Outcome{}
	total, passed := map[string]int{}, map[string]int{}
	for _, o := range r.Outcomes {
		by[o.State] = append(by[o.State], o)
		total[suite.SIG(o.Name)]++
		if o.State == suite.Passed {
			passed[suite.SIG(o.Name)]++
		}
	}
	b.WriteString("# Conformance results\n\nWritten by `make conformance`; not to be edited by hand. A test that is not listed below as failing or skipped passed, and\n`make conformance` fails when one of those does not any more.\n\n")
	fmt.Fprintf(&b, "- date: %s\n- Kubernetes: %s\n- Flyball: %s\n- nodes: %d\n- passed: **%d of %d**\n\n", r.Date.UTC().Format(time.DateOnly), r.Version, r.Product, r.Nodes, len(by[suite.Passed]), len(r.Outcomes))
	b.WriteString("| SIG | passed | of |\n| --- | ---: | ---: |\n")
	for _, sig := range slices.Sorted(maps.Keys(total)) {
		fmt.Fprintf(&b, "| %s | %d | %d |\n", sig, passed[sig], total[sig])
	}
	list := func(heading string, outcomes []suite.Outcome) {
		if len(outcomes) == 0 {
			return
		}
		b.WriteString("\n" + heading + "\n\n")
		for _, o := range byName(outcomes) {
			fmt.Fprintf(&b, "- `%s`\n", o.Name)
			if o.Message != "" {
				fmt.Fprintf(&b, "  %s\n", oneLine(o.Message))
			}
			if why, ok := r.Reference[o.Name]; ok {
				fmt.Fprintf(&b, "  Upstream's own stack fails it on this machine too: %s\n", oneLine(why))
			}
		}
	}
	list(failing, by[suite.Failed])
	list(notRun, by[suite.Skipped])
	if len(r.Unbuilt) > 0 {
		b.WriteString("\n## Images that are not built\n\n| image | why | what that costs |\n| --- | --- | --- |\n")
		for _, u := range r.Unbuilt {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", u.Ref, u.Why, u.Costs)
		}
	}
	return b.String()
}

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + " …"
	}
	return s
}

// Write writes the record into RESULTS.md, and leaves its other parts as they are.
func (r Record) Write(path string) error { return replace(path, conformance, r.Markdown()) }

// Known is what a file records of tests: those that do not pass. Without the file, nothing is recorded.
type Known struct {
	recorded   bool
	of         func(suite.Test) bool // the tests that the file is about
	notPassing map[string]bool
}

// Read reads what Write wrote about the conformance tests.
func Read(path string) (Known, error) {
	k := Known{of: suite.Test.Conformance, notPassing: map[string]bool{}}
	parts, err := split(path)
	if err != nil {
		return k, err
	}
	body := parts[conformance]
	k.recorded = strings.TrimSpace(body) != ""
	section := ""
	for line := range strings.Lines(body) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "## ") {
			section = line
		}
		if name, ok := strings.CutPrefix(line, "- `"); ok && (section == failing || section == notRun) {
			k.notPassing[strings.TrimSuffix(name, "`")] = true
		}
	}
	return k, nil
}

// Lost returns the tests that are recorded as passing and did not pass now.
func (k Known) Lost(outcomes []suite.Outcome) []string {
	var lost []string
	for _, o := range outcomes {
		if k.recorded && o.State != suite.Passed && k.of(suite.Test{Name: o.Name}) && !k.notPassing[o.Name] {
			lost = append(lost, o.Name)
		}
	}
	slices.Sort(lost)
	return lost
}

// Reference is what upstream's own stack did on the machine.
type Reference struct {
	Date    time.Time         `json:"date"`
	Version string            `json:"version"`
	Failing map[string]string `json:"failing"` // by name, with the failure
}

// ReadReference reads what WriteReference wrote; without a file there is none.
func ReadReference(path string) (Reference, error) {
	var r Reference
	body, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(body, &r)
	}
	if err != nil {
		return r, fmt.Errorf("reading the reference %s: %w", path, err)
	}
	return r, nil
}

// WriteReference takes the outcomes of a run against upstream's stack into the reference. Tests that it did not run stay
// as they are.
func WriteReference(path, version string, outcomes []suite.Outcome, now time.Time) error {
	r, err := ReadReference(path)
	if err != nil {
		return err
	}
	if r.Failing == nil {
		r.Failing = map[string]string{}
	}
	r.Date, r.Version = now.UTC(), version
	for _, o := range outcomes {
		if o.State == suite.Failed {
			r.Failing[o.Name] = oneLine(o.Message)
		} else {
			delete(r.Failing, o.Name)
		}
	}
	body, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the reference: %w", err)
	}
	if err := os.WriteFile(path, append(body, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the reference: %w", err)
	}
	return nil
}
