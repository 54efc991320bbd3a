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

	"flyball.dev/test/conformance/suite"
)

// Part is what RESULTS.md says of a suite besides conformance. Beside it lie Suite.yaml, with the reasons, and Suite.txt, with
// the tests that do not pass.
type Part struct {
	// Suite is the suite's name.
	Suite string
	// heading begins the part, and about says which tests these are.
	heading, about string
	// column is what tests are counted by, and group what one is counted under.
	column string
	group  func(name string) string
	of     func(suite.Test) bool
}

// Parts are the parts of RESULTS.md, in its order; they come after conformance.
func Parts() []Part {
	pattern := regexp.MustCompile(`\[Testpattern: [^\]]*\](?:\(allowExpansion\))? (?:\[[^\]]*\] |\([a-z-]*\) )*([\w-]+)`)
	mock := regexp.MustCompile(` CSI Mock ((?:[\w-]+ ?)+)`)
	first := func(r *regexp.Regexp) func(string) string {
		return func(name string) string {
			if m := r.FindStringSubmatch(name); m != nil {
				return strings.TrimSpace(m[1])
			}
			return "other"
		}
	}
	return []Part{{
		Suite: suite.Kind, heading: "## Upstream's kind job", column: "SIG", group: suite.SIG, of: suite.Test.Kind,
		about: "the tests, conformance tests or not, that need no feature that is off by default\n" +
			"and are neither slow, disruptive, flaky nor serial. Dynamic resource allocation is left out.",
	}, {
		Suite: suite.StorageExternal, heading: "## Upstream's tests of a CSI driver", column: "tests", group: first(pattern), of: suite.Test.External,
		about: "the suite for external storage drivers,\nrun on local.flyball.dev with what testdriver.yaml declares.",
	}, {
		Suite: suite.StorageMock, heading: "## Upstream's tests with a mock CSI driver", column: "tests", group: first(mock), of: suite.Test.Mock,
		about: "what a node and the\ncontrollers ask of a CSI driver, which upstream's mock records.",
	}}
}

// PartOf returns the part of a suite.
func PartOf(name string) (Part, bool) {
	parts := Parts()
	i := slices.IndexFunc(parts, func(p Part) bool { return p.Suite == name })
	if i < 0 {
		return Part{}, false
	}
	return parts[i], true
}

// help begins the list of tests that do not pass.
func (p Part) help() string {
	return "# Written by `make conformance SUITE=" + p.Suite + "`: what did not pass. A test that is not here passed, and has to pass again.\n"
}

// Read reads the list of tests that do not pass, which PartRecord.List wrote.
func (p Part) Read(path string) (Known, error) {
	k := Known{of: p.of, notPassing: map[string]bool{}}
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
			if line != p.help() && state != "" {
				return k, fmt.Errorf("reading the recorded results: %s: %q begins neither with failed nor with skipped", path, strings.TrimSpace(line))
			}
		}
	}
	return k, nil
}

// PartRecord is a complete run of a suite.
type PartRecord struct {
	Part
	Date     time.Time
	Version  string // of Kubernetes
	Product  string // what `flyball version` says
	Outcomes []suite.Outcome
	Reasons  Reasons
}

// Markdown renders the record as its part of RESULTS.md.
func (r PartRecord) Markdown() string {
	count := map[suite.State]int{}
	groups := map[string]map[suite.State]int{}
	for _, o := range r.Outcomes {
		count[o.State]++
		group := r.group(o.Name)
		if groups[group] == nil {
			groups[group] = map[suite.State]int{}
		}
		groups[group][o.State]++
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nWritten by `make conformance SUITE=%s`: %s\n\n", r.heading, r.Suite, r.about)
	fmt.Fprintf(&b, "- date: %s\n- Kubernetes: %s\n- Flyball: %s\n- **%d passed, %d failed, %d skipped**\n\n",
		r.Date.UTC().Format(time.DateOnly), r.Version, r.Product, count[suite.Passed], count[suite.Failed], count[suite.Skipped])
	fmt.Fprintf(&b, "| %s | passed | failed | skipped |\n| --- | ---: | ---: | ---: |\n", r.column)
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		fmt.Fprintf(&b, "| %s | %d | %d | %d |\n", group, groups[group][suite.Passed], groups[group][suite.Failed], groups[group][suite.Skipped])
	}
	if count[suite.Failed] > 0 {
		b.WriteString("\n### Failing, and why\n\n")
	}
	for _, o := range byName(r.Outcomes) {
		if o.State == suite.Failed {
			fmt.Fprintf(&b, "- `%s`\n  %s\n", o.Name, oneLine(r.Reasons.Of(o.Name)))
		}
	}
	r.skipped(&b)
	return b.String()
}

// skipped lists the tests that did not run by reason, those with most tests first. That of the suite itself is in its words.
func (r PartRecord) skipped(b *strings.Builder) {
	byReason := map[string][]string{}
	for _, o := range byName(r.Outcomes) {
		if o.State != suite.Skipped {
			continue
		}
		reason := oneLine(o.Message)
		if i := r.Reasons.index(o.Name); i < 0 || !r.Reasons[i].Skip {
			reason = "the suite itself: " + reason
		}
		byReason[reason] = append(byReason[reason], o.Name)
	}
	if len(byReason) == 0 {
		return
	}
	b.WriteString("\n### Skipped, and why\n\n")
	reasons := slices.SortedFunc(maps.Keys(byReason), func(x, y string) int {
		if d := len(byReason[y]) - len(byReason[x]); d != 0 {
			return d
		}
		return strings.Compare(x, y)
	})
	for _, reason := range reasons {
		fmt.Fprintf(b, "<details><summary>%d: %s</summary>\n\n", len(byReason[reason]), reason)
		for _, name := range byReason[reason] {
			fmt.Fprintf(b, "- `%s`\n", name)
		}
		b.WriteString("\n</details>\n\n")
	}
}

// List renders the record as the list of tests that do not pass.
func (r PartRecord) List() string {
	var b strings.Builder
	b.WriteString(r.help())
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

// Write writes the record into both files, and leaves the other parts of RESULTS.md as they are.
func (r PartRecord) Write(results, list string) error {
	if err := replace(results, r.Suite, r.Markdown()); err != nil {
		return err
	}
	if err := os.WriteFile(list, []byte(r.List()), 0o644); err != nil {
		return fmt.Errorf("recording the results: %w", err)
	}
	return nil
}
