package suite

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// State is what became of a test.
type State string

// What becomes of a test. A skipped one found that the cluster lacks what it needs.
const (
	Passed  State = "passed"
	Failed  State = "failed"
	Skipped State = "skipped"
)

// Outcome is the end of one test.
type Outcome struct {
	Name    string    `json:"name"`
	State   State     `json:"state"`
	Message string    `json:"message,omitempty"` // the first failure, in the suite's words
	Seconds float64   `json:"seconds"`
	Ended   time.Time `json:"ended"`
}

// Runner runs tests against one cluster.
type Runner struct {
	Programs   Programs
	Kubeconfig string
	RepoList   string // file for KUBE_TEST_REPO_LIST
	LogDir     string // a log per failed test is left there
	// Workers is how many tests run at once.
	Workers int
	// Limit is how long one test may take.
	Limit time.Duration
	// Started and Ended are told about each test, one call at a time.
	Started func(Test)
	Ended   func(Outcome)

	mu sync.Mutex
}

// Run runs the tests: side by side those that may, then the serial ones alone. When ctx ends, running tests are ended
// and not counted.
func (r *Runner) Run(ctx context.Context, tests []Test) error {
	if err := os.MkdirAll(r.LogDir, 0o755); err != nil {
		return fmt.Errorf("running tests: %w", err)
	}
	var parallel, serial []Test
	for _, t := range tests {
		if t.Serial {
			serial = append(serial, t)
		} else {
			parallel = append(parallel, t)
		}
	}
	r.drain(ctx, parallel, max(1, r.Workers))
	r.drain(ctx, serial, 1)
	return ctx.Err()
}

func (r *Runner) drain(ctx context.Context, tests []Test, workers int) {
	queue := make(chan Test)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for t := range queue {
				r.one(ctx, t)
			}
		})
	}
	for _, t := range tests {
		select {
		case queue <- t:
		case <-ctx.Done():
		}
	}
	close(queue)
	group.Wait()
}

func (r *Runner) one(ctx context.Context, t Test) {
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	r.Started(t)
	r.mu.Unlock()
	start := time.Now()
	out := r.exec(ctx, t)
	if ctx.Err() != nil {
		return
	}
	o := judge(out)
	o.Name, o.Seconds, o.Ended = t.Name, time.Since(start).Seconds(), time.Now().UTC()
	log := filepath.Join(r.LogDir, FileName(t.Name))
	if o.State == Failed {
		_ = os.WriteFile(log, out, 0o644)
	} else {
		_ = os.Remove(log)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Ended(o)
}

// exec runs one test and returns all that it printed.
func (r *Runner) exec(ctx context.Context, t Test) []byte {
	// The suite's own limit comes first, so that the test can clean up behind itself.
	hard, cancel := context.WithTimeout(ctx, r.Limit+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(hard, r.Programs.E2E(),
		"--kubeconfig="+r.Kubeconfig, "--provider=skeleton", "--kubectl-path="+r.Programs.Kubectl(),
		"--kube-test-repo-list="+r.RepoList, "--ginkgo.focus=(^| )"+regexp.QuoteMeta(t.Name)+"$",
		"--ginkgo.v", "--ginkgo.no-color", "--ginkgo.silence-skips", "--ginkgo.timeout="+r.Limit.String(),
		"--disable-log-dump", "--system-pods-startup-timeout=2m", "--node-schedulable-timeout=2m")
	cmd.Env = append(os.Environ(), "KUBE_TEST_REPO_LIST="+r.RepoList, "KUBECONFIG="+r.Kubeconfig)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	// Tests start kubectl; those go with them.
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		fmt.Fprintf(&out, "\ne2e.test: %v\n", err)
	}
	return out.Bytes()
}

var (
	summary = regexp.MustCompile(`(\d+) Passed \| (\d+) Failed`)
	failure = regexp.MustCompile(`(?m)^\s*\[(FAILED|PANICKED!|TIMEDOUT|INTERRUPTED)\] ((?:.*\n){1,3})`)
	skipped = regexp.MustCompile(`(?m)^\s*\[SKIPPED\] (.*)$`)
)

// judge reads what became of a test from what its process printed.
func judge(out []byte) Outcome {
	m := summary.FindSubmatch(out)
	switch {
	case m == nil:
		return Outcome{State: Failed, Message: "the suite's process did not end properly: " + lastLine(out)}
	case string(m[2]) != "0":
		return Outcome{State: Failed, Message: message(failure, out, 2)}
	case string(m[1]) == "0":
		return Outcome{State: Skipped, Message: message(skipped, out, 1)}
	default:
		return Outcome{State: Passed}
	}
}

// message returns the first match that says something: Ginkgo also prints where a failure is, before what it is.
func message(re *regexp.Regexp, out []byte, group int) string {
	for _, m := range re.FindAllSubmatch(out, -1) {
		if text := strings.Join(strings.Fields(string(m[group])), " "); !strings.HasPrefix(text, "in [") && text != "" {
			return text
		}
	}
	return ""
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

var unsafe = regexp.MustCompile(`[^A-Za-z0-9]+`)

// FileName returns a file name for the log of a test.
func FileName(name string) string {
	s := strings.Trim(unsafe.ReplaceAllString(strings.TrimSuffix(strings.Replace(name, "[Conformance]", "", 1), " "), "-"), "-")
	return s[:min(len(s), 180)] + ".log"
}

// Order puts the tests that take longest first, so that none of them runs alone in the end. Tests that take equally long
// keep their order.
func Order(tests []Test, seconds func(Test) float64) {
	slices.SortStableFunc(tests, func(a, b Test) int { return cmp.Compare(seconds(b), seconds(a)) })
}
