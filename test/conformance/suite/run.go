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
	// Seconds says how long a test will take.
	Seconds func(Test) float64
	// Started is told about each test that begins, and of the one that its process ran before, if any. Ended is told what
	// became of it, which is known when its process ends. They are called one at a time.
	Started func(before string, t Test)
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
	r.drain(ctx, Batches(parallel, r.Seconds), max(1, r.Workers))
	r.drain(ctx, Batches(serial, r.Seconds), 1)
	return ctx.Err()
}

func (r *Runner) drain(ctx context.Context, batches [][]Test, workers int) {
	queue := make(chan []Test)
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for batch := range queue {
				r.batch(ctx, batch)
			}
		})
	}
	for _, b := range batches {
		select {
		case queue <- b:
		case <-ctx.Done():
		}
	}
	close(queue)
	group.Wait()
}

// batch runs tests in one process. Those that the process has not come to, because it died or was ended, get one each.
func (r *Runner) batch(ctx context.Context, tests []Test) {
	if ctx.Err() != nil {
		return
	}
	start := time.Now()
	report, out := r.exec(ctx, tests)
	if ctx.Err() != nil {
		return
	}
	outcomes := judge(report, tests)
	for _, t := range tests {
		o, ok := outcomes[t.Name]
		switch {
		case !ok && len(tests) > 1:
			r.batch(ctx, []Test{t})
			continue
		case !ok:
			o = Outcome{State: Failed, Message: "the suite's process did not end properly: " + lastLine(out), Seconds: time.Since(start).Seconds()}
		}
		o.Name, o.Ended = t.Name, time.Now().UTC()
		log := filepath.Join(r.LogDir, FileName(t.Name))
		if o.State == Failed {
			_ = os.WriteFile(log, logOf(out, t.Name, len(tests) == 1), 0o644)
		} else {
			_ = os.Remove(log)
		}
		r.mu.Lock()
		r.Ended(o)
		r.mu.Unlock()
	}
}

// exec runs tests in one process, and returns the suite's report, if it wrote one, and all that it printed.
func (r *Runner) exec(ctx context.Context, tests []Test) (report, out []byte) {
	dir, err := os.MkdirTemp("", "conformance-run-")
	if err != nil {
		return nil, []byte(err.Error())
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "report.json")
	names := make([]string, len(tests))
	for i, t := range tests {
		names[i] = regexp.QuoteMeta(t.Name)
	}
	// The suite's own limit comes first, so that the test can clean up behind itself.
	hard, cancel := context.WithTimeout(ctx, r.Limit+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(hard, r.Programs.E2E(), append(r.Programs.flags(),
		"--kubeconfig="+r.Kubeconfig, "--kubectl-path="+r.Programs.Kubectl(),
		"--kube-test-repo-list="+r.RepoList, "--ginkgo.focus=(^| )("+strings.Join(names, "|")+")$", "--ginkgo.json-report="+file,
		"--ginkgo.v", "--ginkgo.no-color", "--ginkgo.silence-skips", "--ginkgo.timeout="+r.Limit.String(),
		"--disable-log-dump", "--system-pods-startup-timeout=2m", "--node-schedulable-timeout=2m")...)
	cmd.Env = append(os.Environ(), "KUBE_TEST_REPO_LIST="+r.RepoList, "KUBECONFIG="+r.Kubeconfig)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	// Tests start kubectl; those go with them.
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	printed := &watcher{waiting: tests, started: func(before string, t Test) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.Started(before, t)
	}}
	cmd.Stdout, cmd.Stderr = printed, printed
	if err := cmd.Run(); err != nil {
		fmt.Fprintf(&printed.all, "\ne2e.test: %v\n", err)
	}
	report, _ = os.ReadFile(file) // there is none if the process died
	return report, printed.all.Bytes()
}

// watcher keeps what a process prints, and tells when a test begins: its name is a line then.
type watcher struct {
	all     bytes.Buffer
	line    int // where the last line begins
	waiting []Test
	current string
	started func(before string, t Test)
}

func (w *watcher) Write(p []byte) (int, error) {
	_, _ = w.all.Write(p)
	for {
		rest := w.all.Bytes()[w.line:]
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return len(p), nil
		}
		if i := slices.IndexFunc(w.waiting, func(t Test) bool { return string(rest[:end]) == t.Name || bytes.HasPrefix(rest, []byte(t.Name+" [")) }); i >= 0 {
			w.started(w.current, w.waiting[i])
			w.current = w.waiting[i].Name
			w.waiting = slices.Delete(slices.Clone(w.waiting), i, i+1)
		}
		w.line += end + 1
	}
}

// judge reads from the suite's report what became of the tests that were begun.
func judge(report []byte, tests []Test) map[string]Outcome {
	specs, err := parse(report)
	if err != nil {
		return nil
	}
	outcomes := map[string]Outcome{}
	for _, s := range specs {
		if !slices.ContainsFunc(tests, func(t Test) bool { return t.Name == s.name() }) {
			continue
		}
		o := Outcome{Seconds: s.RunTime.Seconds(), Message: oneLine(s.Failure.Message)}
		switch {
		case s.State == "passed":
			o.State = Passed
		case s.State != "skipped":
			o.State = Failed
		case s.Failure.Message != "":
			o.State = Skipped
		default: // not begun
			continue
		}
		outcomes[s.name()] = o
	}
	return outcomes
}

// oneLine shortens a message, which may have whole objects in it.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.ToValidUTF8(s[:min(len(s), 2000)], "")
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// logOf returns the part of what a process printed that is about a test.
func logOf(out []byte, name string, alone bool) []byte {
	const line = "------------------------------\n"
	if alone {
		return out
	}
	var parts []string
	for part := range strings.SplitSeq(string(out), line) {
		if strings.Contains(part, name) {
			parts = append(parts, part)
		}
	}
	return []byte(strings.Join(parts, line))
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

// A process needs a second of CPU until it runs its first test: short tests share one.
const (
	batchSeconds = 40
	batchTests   = 8
)

// Batches returns the tests, in their order, in groups that are to share a process.
func Batches(tests []Test, seconds func(Test) float64) [][]Test {
	var batches [][]Test
	var sum float64
	for _, t := range tests {
		last := len(batches) - 1
		if last < 0 || len(batches[last]) == batchTests || sum+seconds(t) > batchSeconds {
			batches, sum = append(batches, nil), 0
			last++
		}
		batches[last] = append(batches[last], t)
		sum += seconds(t)
	}
	return batches
}
