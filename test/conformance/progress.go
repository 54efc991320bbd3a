package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"flyball.dev/test/conformance/suite"
)

// progress shows how far a run is: on a terminal one line that changes, elsewhere a line now and then.
type progress struct {
	out      io.Writer
	terminal bool
	total    int
	workers  int

	mu                            sync.Mutex
	passed, failed, skipped, live int
	estimate                      map[string]float64 // seconds by test, from earlier runs
	left                          float64            // estimated seconds of work that is not done
	begun, shown                  time.Time
}

func newProgress(tests []suite.Test, workers int, estimate map[string]float64) *progress {
	p := &progress{
		out: os.Stderr, terminal: term.IsTerminal(int(os.Stderr.Fd())), total: len(tests), workers: workers,
		estimate: estimate, begun: time.Now(), shown: time.Now(),
	}
	for _, t := range tests {
		p.left += p.seconds(t.Name)
	}
	return p
}

// seconds guesses how long a test takes; half a minute is about the mean of the suite.
func (p *progress) seconds(name string) float64 {
	if s, ok := p.estimate[name]; ok {
		return s
	}
	return 30
}

func (p *progress) started(suite.Test) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live++
	p.show(false)
}

func (p *progress) ended(o suite.Outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live--
	p.left -= p.seconds(o.Name)
	switch o.State {
	case suite.Passed:
		p.passed++
	case suite.Skipped:
		p.skipped++
	case suite.Failed:
		p.failed++
		p.clear()
		_, _ = fmt.Fprintf(p.out, "✗ %s (%.0f s)\n    %s\n", o.Name, o.Seconds, o.Message)
	}
	p.show(p.passed+p.failed+p.skipped == p.total)
}

func (p *progress) clear() {
	if p.terminal {
		_, _ = fmt.Fprint(p.out, "\r\033[K")
	}
}

// show is called with the lock held.
func (p *progress) show(now bool) {
	if !p.terminal && !now && time.Since(p.shown) < 30*time.Second {
		return
	}
	p.shown = time.Now()
	p.clear()
	left := time.Duration(max(0, p.left) / float64(p.workers) * float64(time.Second)).Round(time.Minute)
	_, _ = fmt.Fprintf(p.out, "%d of %d done, %d failed, %d skipped, %d running, %s passed, about %s left",
		p.passed+p.failed+p.skipped, p.total, p.failed, p.skipped, p.live, time.Since(p.begun).Round(time.Second), left)
	if !p.terminal || now {
		_, _ = fmt.Fprintln(p.out)
	}
}
