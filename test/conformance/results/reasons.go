package results

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"

	"sigs.k8s.io/yaml"

	"flyball.dev/test/conformance/suite"
)

// Reason says why tests of a suite fail, or why they are not run. People write it, into a file such as kind.yaml.
type Reason struct {
	// Test is the name of one test, Tests a regular expression for the names of several. One of them is set.
	Test  string `json:"test,omitempty"`
	Tests string `json:"tests,omitempty"`
	// Skip is set for tests that cannot run here. They are not begun, and count as skipped.
	Skip bool `json:"skip,omitempty"`
	// Reason is why, in a sentence or two.
	Reason string `json:"reason"`

	match *regexp.Regexp
}

func (r Reason) of(name string) bool {
	return r.Test == name || r.match != nil && r.match.MatchString(name)
}

// Reasons are those of all tests that are known to fail, or that cannot run. The first that fits a test is its reason.
type Reasons []Reason

// ReadReasons reads a file of reasons. Without the file there are none.
func ReadReasons(path string) (Reasons, error) {
	body, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var reasons Reasons
	if err == nil {
		err = yaml.UnmarshalStrict(body, &reasons)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the reasons in %s: %w", path, err)
	}
	for i := range reasons {
		r := &reasons[i]
		if (r.Test == "") == (r.Tests == "") || r.Reason == "" {
			return nil, fmt.Errorf("reading the reasons in %s: entry %d must have a reason, and either test (a name) or tests (a regular expression)", path, i+1)
		}
		if r.Tests == "" {
			continue
		}
		if r.match, err = regexp.Compile(r.Tests); err != nil {
			return nil, fmt.Errorf("reading the reasons in %s: entry %d: tests: %w", path, i+1, err)
		}
	}
	return reasons, nil
}

// Of returns the reason of a test, empty if there is none.
func (r Reasons) Of(name string) string {
	if i := r.index(name); i >= 0 {
		return r[i].Reason
	}
	return ""
}

// index is the first entry that fits a test, negative if there is none.
func (r Reasons) index(name string) int {
	return slices.IndexFunc(r, func(r Reason) bool { return r.of(name) })
}

// Skip takes out the tests that cannot run, and returns the others. What became of those that it took out is their reason.
func (r Reasons) Skip(tests []suite.Test) (run []suite.Test, skipped []suite.Outcome) {
	for _, t := range tests {
		if i := r.index(t.Name); i >= 0 && r[i].Skip {
			skipped = append(skipped, suite.Outcome{Name: t.Name, State: suite.Skipped, Message: r[i].Reason})
			continue
		}
		run = append(run, t)
	}
	return run, skipped
}

// Missing returns the tests that failed without a reason.
func (r Reasons) Missing(outcomes []suite.Outcome) []string {
	var missing []string
	for _, o := range outcomes {
		if o.State == suite.Failed && r.Of(o.Name) == "" {
			missing = append(missing, o.Name)
		}
	}
	slices.Sort(missing)
	return missing
}

// Unneeded returns the entries that no failed test needs, and no skipped one that an entry says to skip. Outcomes are those of
// a complete run.
func (r Reasons) Unneeded(outcomes []suite.Outcome) []string {
	needed := make([]bool, len(r))
	for _, o := range outcomes {
		if i := r.index(o.Name); i >= 0 && (o.State == suite.Failed || r[i].Skip) {
			needed[i] = true
		}
	}
	var unneeded []string
	for i, r := range r {
		if !needed[i] {
			unneeded = append(unneeded, r.Test+r.Tests)
		}
	}
	return unneeded
}
