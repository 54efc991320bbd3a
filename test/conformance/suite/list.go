package suite

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Test is one test of the suite.
type Test struct {
	// Name is what Ginkgo calls it, with the texts of all containers around it.
	Name string
	// Serial tests run while no other does.
	Serial bool
}

// SIG returns the special interest group that a test belongs to, such as node.
func SIG(name string) string {
	_, rest, ok := strings.Cut(name, "[sig-")
	sig, _, closed := strings.Cut(rest, "]")
	if !ok || !closed {
		return "none"
	}
	return sig
}

// Conformance tells whether a test belongs to the conformance suite.
func (t Test) Conformance() bool { return strings.Contains(t.Name, "[Conformance]") }

// report is the part of Ginkgo's JSON report that is read here.
type report struct {
	SpecReports []spec `json:"SpecReports"`
}

type spec struct {
	LeafNodeType            string        `json:"LeafNodeType"`
	ContainerHierarchyTexts []string      `json:"ContainerHierarchyTexts"`
	LeafNodeText            string        `json:"LeafNodeText"`
	IsSerial                bool          `json:"IsSerial"`
	State                   string        `json:"State"`
	RunTime                 time.Duration `json:"RunTime"`
	Failure                 struct {
		Message string `json:"Message"`
	} `json:"Failure"`
}

// name is what Ginkgo compares with a focus: containers without a text are not in it.
func (s spec) name() string {
	texts := append(slices.Clone(s.ContainerHierarchyTexts), s.LeafNodeText)
	return strings.Join(slices.DeleteFunc(texts, func(text string) bool { return text == "" }), " ")
}

// List returns all tests of the suite, in the suite's order, without running any.
func (p Programs) List(ctx context.Context) ([]Test, error) {
	dir, err := os.MkdirTemp("", "conformance-list-")
	if err != nil {
		return nil, fmt.Errorf("listing tests: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "report.json")
	args := append(p.flags(), "--ginkgo.dry-run", "--ginkgo.silence-skips", "--ginkgo.json-report="+file)
	cmd := exec.CommandContext(ctx, p.E2E(), args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("listing tests: %w\n%s", err, tail(out, 2000))
	}
	body, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("listing tests: %w", err)
	}
	specs, err := parse(body)
	if err != nil {
		return nil, err
	}
	var tests []Test
	for _, s := range specs {
		tests = append(tests, Test{Name: s.name(), Serial: s.IsSerial || strings.Contains(s.name(), "[Serial]")})
	}
	return tests, nil
}

// parse returns the tests in a report.
func parse(body []byte) ([]spec, error) {
	var reports []report
	if err := json.Unmarshal(body, &reports); err != nil {
		return nil, fmt.Errorf("reading the suite's report: %w", err)
	}
	var specs []spec
	for _, r := range reports {
		specs = append(specs, r.SpecReports...)
	}
	return slices.DeleteFunc(specs, func(s spec) bool { return s.LeafNodeType != "It" }), nil
}

// Suites are the sets of tests that Select knows.
const Suites = "conformance, kind (what upstream's kind job runs), storage-external (upstream's tests of a CSI driver, with Flyball's own), " +
	"storage-mock (upstream's tests with a mock CSI driver), subset (what continuous integration runs) or all"

// Select returns the tests of one of the Suites whose name matches the focus and not the skip; an empty expression does not
// restrict.
func Select(tests []Test, suite, focus, skip string) ([]Test, error) {
	in, err := regexp.Compile(focus)
	if err != nil {
		return nil, fmt.Errorf("reading FOCUS: %w", err)
	}
	out, err := regexp.Compile(skip)
	if err != nil {
		return nil, fmt.Errorf("reading SKIP: %w", err)
	}
	belongs := func(Test) bool { return true }
	switch suite {
	case "all":
	case "conformance":
		belongs = Test.Conformance
	case Kind:
		belongs = Test.Kind
	case StorageExternal:
		belongs = Test.External
	case StorageMock:
		belongs = Test.Mock
	case "subset":
		if tests, err = Subset(tests); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("reading SUITE: it is %s, not %q", Suites, suite)
	}
	return slices.DeleteFunc(slices.Clone(tests), func(t Test) bool {
		return !belongs(t) || !in.MatchString(t.Name) || skip != "" && out.MatchString(t.Name)
	}), nil
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }
