package main

import (
	"fmt"
	"io"
	"os"
	"strings"
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

	mu                      sync.Mutex
	passed, failed, skipped int
	live                    map[string]time.Time // when a running test began
	estimate                map[string]float64   // seconds by test, from earlier runs
	serial                  map[string]bool      // tests that run alone
	left, leftSerial        float64              // estimated seconds of work that is not done
	begun, shown            time.Time
}

func newProgress(tests []suite.Test, workers int, estimate map[string]float64) *progress {
	p := &progress{
		out: os.Stderr, terminal: term.IsTerminal(int(os.Stderr.Fd())), total: len(tests), workers: workers,
		estimate: estimate, begun: time.Now(), shown: time.Now(), live: map[string]time.Time{}, serial: map[string]bool{},
	}
	for _, t := range tests {
		p.serial[t.Name] = t.Serial
		*p.leftOf(t.Name) += p.seconds(t.Name)
	}
	return p
}

func (p *progress) leftOf(name string) *float64 {
	if p.serial[name] {
		return &p.leftSerial
	}
	return &p.left
}

// run shows the progress, also while nothing happens, until the function that it returns is called.
func (p *progress) run() (stop func()) {
	ended := make(chan struct{})
	ticks := time.NewTicker(time.Second)
	go func() {
		defer ticks.Stop()
		for {
			select {
			case <-ended:
				return
			case <-ticks.C:
				p.mu.Lock()
				p.show(false)
				p.mu.Unlock()
			}
		}
	}()
	return func() { close(ended) }
}

func (p *progress) seconds(name string) float64 { return guess(p.estimate, name) }

// guess says how long a test takes, from earlier runs or from what the suite calls slow.
func guess(known map[string]float64, name string) float64 {
	if s, ok := known[name]; ok {
		return s
	}
	if strings.Contains(name, "[Slow]") {
		return 300
	}
	return longSeconds / 2
}

func (p *progress) started(before string, t suite.Test) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.live, before)
	p.live[t.Name] = time.Now()
	p.show(false)
}

func (p *progress) ended(o suite.Outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.live, o.Name)
	*p.leftOf(o.Name) -= p.seconds(o.Name)
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
	left := time.Duration(max(0, p.left/float64(p.workers)+p.leftSerial) * float64(time.Second)).Round(10 * time.Second)
	line := fmt.Sprintf("%d of %d done, %d failed, %d skipped, %d running, %s passed, about %s left", p.passed+p.failed+p.skipped,
		p.total, p.failed, p.skipped, len(p.live), time.Since(p.begun).Round(time.Second), left.String())
	if name, since := p.oldest(); since > 2*time.Minute {
		line += fmt.Sprintf("; %s since %s", name, since.Round(time.Second))
	}
	_, _ = fmt.Fprint(p.out, line)
	if !p.terminal || now {
		_, _ = fmt.Fprintln(p.out)
	}
}

// oldest is the test that has been running longest: a hanging one has a name then.
func (p *progress) oldest() (name string, since time.Duration) {
	for n, t := range p.live {
		if d := time.Since(t); d > since {
			name, since = n, d
		}
	}
	return name, since
}
