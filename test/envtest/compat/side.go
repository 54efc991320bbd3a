package main

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
)

// side is one set of programs.
type side struct{ name, assets string }

// outcomes are what became of tests, by their names.
type outcomes map[string]string

const passed, failed, skipped = "passed", "failed", "skipped"

// or adds the outcomes of another run. A test that has passed once passes.
func (o outcomes) or(other outcomes) outcomes {
	sum := maps.Clone(other)
	for test, outcome := range o {
		if outcome == passed || sum[test] == "" {
			sum[test] = outcome
		}
	}
	return sum
}

// comparison is one package on both sides.
type comparison struct {
	pkg               pkg
	upstream, flyball outcomes
}

// worse are the tests that pass with upstream's programs only.
func (c comparison) worse() []string { return onlyPassed(c.upstream, c.flyball) }

// better are the tests that pass with Flyball's programs only.
func (c comparison) better() []string { return onlyPassed(c.flyball, c.upstream) }

// both are the tests that fail with either.
func (c comparison) both() (names []string) {
	for name, outcome := range c.flyball {
		if outcome == failed && c.upstream[name] == failed {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func onlyPassed(here, there outcomes) (names []string) {
	for name, outcome := range here {
		if outcome == passed && there[name] != passed {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

type counts struct{ passed, failed, skipped int }

func (c counts) plus(d counts) counts {
	return counts{c.passed + d.passed, c.failed + d.failed, c.skipped + d.skipped}
}

func count(o outcomes) (c counts) {
	for _, outcome := range o {
		switch outcome {
		case passed:
			c.passed++
		case failed:
			c.failed++
		default:
			c.skipped++
		}
	}
	return c
}

// run runs the tests of a package. What they print lies beside their programs.
func (s side) run(ctx context.Context, m module, p pkg, program string, try int) (outcomes, error) {
	base := strings.TrimSuffix(program, ".test") + "." + s.name + "." + strconv.Itoa(try+1)
	log, err := os.Create(base + ".log")
	if err != nil {
		return nil, fmt.Errorf("making the log: %w", err)
	}
	defer log.Close()
	args := []string{"-test.v", "-test.timeout=20m"}
	report := base + ".xml"
	if p.ginkgo() {
		_ = os.Remove(report)
		args = append(args, "-ginkgo.junit-report="+report)
	}
	temporary, err := os.MkdirTemp("", "envtest-compat-")
	if err != nil {
		return nil, fmt.Errorf("making a directory for temporary files: %w", err)
	}
	defer cleanUp(temporary)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.Dir, log, log
	cmd.Env = append(os.Environ(), "KUBEBUILDER_ASSETS="+s.assets, "FLYBALL_ENVTEST=", "TMPDIR="+temporary)
	if err := cmd.Run(); err != nil {
		if exit := new(exec.ExitError); !errors.As(err, &exit) || ctx.Err() != nil {
			return nil, fmt.Errorf("running the tests of %s: %w", p.name(), err)
		}
		fmt.Fprintf(os.Stderr, "  %s: failures, see %s\n", s.name, filepath.Base(log.Name()))
	}
	got := outcomes{}
	if err := got.readLog(log.Name()); err != nil {
		return nil, err
	}
	if p.ginkgo() {
		err = got.readReport(report)
	}
	return got, err
}

// cleanUp removes what tests have left behind that died: control planes that go on, which are known by the directory for
// temporary files in their environment, and that directory.
func cleanUp(temporary string) {
	all, _ := procfs.AllProcs() // none where there is no /proc
	for _, p := range all {
		if env, err := p.Environ(); err == nil && slices.Contains(env, "TMPDIR="+temporary) {
			if process, err := os.FindProcess(p.PID); err == nil {
				_ = process.Kill()
			}
		}
	}
	_ = os.RemoveAll(temporary)
}

// ending is how Go's own test framework ends a test.
var ending = regexp.MustCompile(`(?m)^\s*--- (PASS|FAIL|SKIP): (\S+)`)

func (o outcomes) readLog(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the log: %w", err)
	}
	words := map[string]string{"PASS": passed, "FAIL": failed, "SKIP": skipped}
	for _, match := range ending.FindAllSubmatch(text, -1) {
		o[string(match[2])] = words[string(match[1])]
	}
	return nil
}

// readReport reads Ginkgo's report, which is missing if the tests died.
func (o outcomes) readReport(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var report struct {
		Suites []struct {
			Tests []struct {
				Name   string `xml:"name,attr"`
				Status string `xml:"status,attr"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err == nil {
		err = xml.Unmarshal(text, &report)
	}
	if err != nil {
		return fmt.Errorf("reading the report %s: %w", path, err)
	}
	for _, suite := range report.Suites {
		for _, test := range suite.Tests {
			name := test.Name
			for i := 2; o[name] != ""; i++ { // some tests share a name
				name = test.Name + " #" + strconv.Itoa(i)
			}
			switch test.Status {
			case "passed":
				o[name] = passed
			case "skipped", "pending":
				o[name] = skipped
			default:
				o[name] = failed
			}
		}
	}
	return nil
}
