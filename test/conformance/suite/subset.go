package suite

import (
	_ "embed"
	"fmt"
	"strings"
)

// subset.txt names the conformance tests that continuous integration runs: some of every SIG, one of each group of tests
// where there is one that takes seconds.
//
//go:embed subset.txt
var subset string

// Subset returns the tests of the subset.
func Subset(tests []Test) ([]Test, error) {
	wanted := map[string]bool{}
	for line := range strings.Lines(subset) {
		wanted[strings.TrimSpace(line)] = true
	}
	var chosen []Test
	for _, t := range tests {
		if wanted[t.Name] {
			chosen = append(chosen, t)
			delete(wanted, t.Name)
		}
	}
	for name := range wanted {
		return nil, fmt.Errorf("choosing tests: the suite has no %q any more; name another in suite/subset.txt", name)
	}
	return chosen, nil
}
