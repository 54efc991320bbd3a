package results

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"flyball.dev/test/conformance/suite"
)

// Reason says why tests of the kind job fail. People write it, into kind.yaml.
type Reason struct {
	// Test is the name of one test, Tests a regular expression for the names of several. One of them is set.
	Test  string `json:"test,omitempty"`
	Tests string `json:"tests,omitempty"`
	// Reason is why, in a sentence or two.
	Reason string `json:"reason"`

	match *regexp.Regexp
}

func (r Reason) of(name string) bool {
	return r.Test == name || r.match != nil && r.match.MatchString(name)
}

// Reasons are those of all tests that are known to fail. The first that fits a test is its reason.
type Reasons []Reason

// ReadReasons reads kind.yaml. Without the file there are none.
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
	if i := slices.IndexFunc(r, func(r Reason) bool { return r.of(name) }); i >= 0 {
		return r[i].Reason
	}
	return ""
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

// Unneeded returns the entries that no failed test needs. Outcomes are those of a complete run.
func (r Reasons) Unneeded(outcomes []suite.Outcome) []string {
	needed := make([]bool, len(r))
	for _, o := range outcomes {
		if i := slices.IndexFunc(r, func(r Reason) bool { return r.of(o.Name) }); i >= 0 && o.State == suite.Failed {
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

// KindRecord is a complete run of what upstream's kind job runs.
type KindRecord struct {
	Date     time.Time
	Version  string // of Kubernetes
	Product  string // what `flyball version` says
	Outcomes []suite.Outcome
	Reasons  Reasons
}

// kindHeading begins the part of RESULTS.md that is about the kind job. It is the last one.
const kindHeading = "## Upstream's kind job"

// Markdown renders the record as the last part of RESULTS.md.
func (r KindRecord) Markdown() string {
	count := map[suite.State]int{}
	sigs := map[string]map[suite.State]int{}
	for _, o := range r.Outcomes {
		count[o.State]++
		sig := suite.SIG(o.Name)
		if sigs[sig] == nil {
			sigs[sig] = map[suite.State]int{}
		}
		sigs[sig][o.State]++
	}
	var b strings.Builder
	b.WriteString(kindHeading + "\n\nWritten by `make conformance SUITE=kind`: the tests, conformance tests or not, that need no feature that is off by default\n" +
		"and are neither slow, disruptive, flaky nor serial. Volumes and dynamic resource allocation are left out.\n\n")
	fmt.Fprintf(&b, "- date: %s\n- Kubernetes: %s\n- Flyball: %s\n- **%d passed, %d failed, %d skipped by the suite itself**\n\n",
		r.Date.UTC().Format(time.DateOnly), r.Version, r.Product, count[suite.Passed], count[suite.Failed], count[suite.Skipped])
	b.WriteString("| SIG | passed | failed | skipped |\n| --- | ---: | ---: | ---: |\n")
	for _, sig := range slices.Sorted(maps.Keys(sigs)) {
		fmt.Fprintf(&b, "| %s | %d | %d | %d |\n", sig, sigs[sig][suite.Passed], sigs[sig][suite.Failed], sigs[sig][suite.Skipped])
	}
	if count[suite.Failed] > 0 {
		b.WriteString("\n### Failing, and why\n\n")
	}
	for _, o := range byName(r.Outcomes) {
		if o.State == suite.Failed {
			fmt.Fprintf(&b, "- `%s`\n  %s\n", o.Name, oneLine(r.Reasons.Of(o.Name)))
		}
	}
	return b.String()
}

// kindHelp begins kind.txt.
const kindHelp = "# Written by `make conformance SUITE=kind`: what did not pass. A test that is not here passed, and has to pass again.\n"

// List renders the record as kind.txt, for ReadKind.
func (r KindRecord) List() string {
	var b strings.Builder
	b.WriteString(kindHelp)
	for _, o := range byName(r.Outcomes) {
		if o.State != suite.Passed {
			fmt.Fprintf(&b, "%-7s %s\n", o.State, o.Name)
		}
	}
	return b.String()
}

func byName(outcomes []suite.Outcome) []suite.Outcome {
	return slices.SortedFunc(slices.Values(outcomes), func(a, b suite.Outcome) int { return strings.Compare(a.Name, b.Name) })
}

// Write writes the record into both files, and leaves what RESULTS.md says of conformance as it is.
func (r KindRecord) Write(results, list string) error {
	conformance, _, err := split(results)
	if err != nil {
		return err
	}
	if err := write(results, conformance, r.Markdown()); err != nil {
		return err
	}
	if err := os.WriteFile(list, []byte(r.List()), 0o644); err != nil {
		return fmt.Errorf("recording the results: %w", err)
	}
	return nil
}

// ReadKind reads the kind.txt that List wrote.
func ReadKind(path string) (Known, error) {
	k := Known{of: suite.Test.Kind, notPassing: map[string]bool{}}
	body, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return k, fmt.Errorf("reading the recorded results: %w", err)
	}
	k.recorded = true
	for line := range strings.Lines(string(body)) {
		state, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch suite.State(state) {
		case suite.Failed, suite.Skipped:
			k.notPassing[strings.TrimSpace(name)] = true
		default:
			if line != kindHelp && state != "" {
				return k, fmt.Errorf("reading the recorded results: %s: %q begins neither with failed nor with skipped", path, strings.TrimSpace(line))
			}
		}
	}
	return k, nil
}

// split returns the parts of RESULTS.md, empty if they are not there.
func split(path string) (conformance, kind string, err error) {
	body, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", "", fmt.Errorf("reading the recorded results: %w", err)
	}
	conformance, kind, found := strings.Cut(string(body), kindHeading+"\n")
	if found {
		kind = kindHeading + "\n" + kind
	}
	return conformance, kind, nil
}

// write writes both parts of RESULTS.md.
func write(path, conformance, kind string) error {
	parts := slices.DeleteFunc([]string{strings.TrimSpace(conformance), strings.TrimSpace(kind)}, func(s string) bool { return s == "" })
	if err := os.WriteFile(path, []byte(strings.Join(parts, "\n\n")+"\n"), 0o644); err != nil {
		return fmt.Errorf("recording the results: %w", err)
	}
	return nil
}
