// Package progress draws the start of a cluster: a line with the time it took for each step that is
// done, and on a terminal a spinner with the steps under way.
package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"flyball.dev/host/status"
)

// ErrorPrefix begins the line in which a command says why it failed.
const ErrorPrefix = "Error: "

const (
	frames     = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
	frameEvery = 100 * time.Millisecond
	clearLine  = "\r\x1b[K"
)

// Printer writes the progress of one start. It is used by one goroutine.
type Printer struct {
	out      io.Writer
	terminal bool
	began    time.Time
	printed  map[string]status.State
	frame    int
}

// New makes a printer for out; whether that is a terminal decides the form.
func New(out *os.File, began time.Time) *Printer {
	return &Printer{out: out, terminal: term.IsTerminal(int(out.Fd())), began: began, printed: map[string]status.State{}}
}

// Show prints what is new in the components.
func (p *Printer) Show(components []status.Component) {
	for _, c := range components {
		if p.printed[c.Name] == c.State {
			continue
		}
		switch c.State {
		case status.Up:
			p.Done(c.Name, c.Took)
		case status.Down:
			p.Failed(c.Name, c.LastError)
		default:
			continue
		}
		p.printed[c.Name] = c.State
	}
	p.spin(components)
}

// linef prints a line above the spinner.
func (p *Printer) linef(format string, args ...any) {
	p.clear()
	fmt.Fprintf(p.out, " "+format+"\n", args...)
}

// Done prints that a step is done, and the time it took.
func (p *Printer) Done(step string, took time.Duration) {
	p.linef("✓ %-33s %5.1fs", step, took.Seconds())
}

// Failed prints why a step failed.
func (p *Printer) Failed(step string, why any) {
	p.linef("✗ %-33s %v", step, why)
}

// Warn prints what is wrong and keeps nothing from going on.
func (p *Printer) Warn(what error) {
	p.linef("! %v", what)
}

// clear removes the spinner.
func (p *Printer) clear() {
	if p.terminal {
		fmt.Fprint(p.out, clearLine)
	}
}

func (p *Printer) spin(components []status.Component) {
	if !p.terminal {
		return
	}
	var starting []string
	for _, c := range components {
		if c.State == status.Starting {
			starting = append(starting, c.Name)
		}
	}
	spinner := []rune(frames)
	p.frame = (p.frame + 1) % len(spinner)
	line := []rune(fmt.Sprintf(" %c %.1fs %s", spinner[p.frame], time.Since(p.began).Seconds(), strings.Join(starting, ", ")))
	// A line that wraps could not be cleared.
	if width := p.width(); len(line) > width {
		line = line[:width]
	}
	fmt.Fprint(p.out, clearLine+string(line))
}

// Follow shows the states that are sent to it until stop is called, and keeps the spinner moving in
// between.
func (p *Printer) Follow() (states chan<- []status.Component, stop func()) {
	received, drawn := make(chan []status.Component), make(chan struct{})
	go func() {
		defer close(drawn)
		p.follow(received)
	}()
	return received, func() {
		close(received)
		<-drawn
	}
}

func (p *Printer) follow(states <-chan []status.Component) {
	ticker := time.NewTicker(frameEvery)
	defer ticker.Stop()
	defer p.clear()
	var last []status.Component
	for {
		select {
		case components, ok := <-states:
			if !ok {
				return
			}
			last = components
			p.Show(components)
		case <-ticker.C:
			p.spin(last)
		}
	}
}

// width is how much fits into one line of the terminal.
func (p *Printer) width() int {
	const usual = 80
	if f, ok := p.out.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width - 1
		}
	}
	return usual - 1
}
