// Package progress draws the start of a cluster: a line with the time it took for each step that is done, and on a
// terminal a spinner with the steps under way.
package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"flyball.dev/host/board"
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
	printed  map[string]board.State
	frame    int
}

// New makes a printer for out; whether that is a terminal decides the form.
func New(out *os.File, began time.Time) *Printer {
	return &Printer{out: out, terminal: term.IsTerminal(int(out.Fd())), began: began, printed: map[string]board.State{}}
}

// Show prints what is new in the parts.
func (p *Printer) Show(parts []board.Part) {
	for _, part := range parts {
		if p.printed[part.Name] == part.State {
			continue
		}
		switch part.State {
		case board.Up:
			p.Done(part.Name, part.Took)
		case board.Down:
			p.Failed(part.Name, part.LastError)
		default:
			continue
		}
		p.printed[part.Name] = part.State
	}
	p.spin(parts)
}

// linef prints a line above the spinner.
func (p *Printer) linef(format string, args ...any) {
	if p.terminal {
		fmt.Fprint(p.out, clearLine)
	}
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

// Clear removes the spinner.
func (p *Printer) Clear() {
	if p.terminal {
		fmt.Fprint(p.out, clearLine)
	}
}

func (p *Printer) spin(parts []board.Part) {
	if !p.terminal {
		return
	}
	var starting []string
	for _, part := range parts {
		if part.State == board.Starting {
			starting = append(starting, part.Name)
		}
	}
	turning := []rune(frames)
	p.frame = (p.frame + 1) % len(turning)
	line := []rune(fmt.Sprintf(" %c %.1fs %s", turning[p.frame], time.Since(p.began).Seconds(), strings.Join(starting, ", ")))
	// A line that wraps could not be cleared.
	if width := p.width(); len(line) > width {
		line = line[:width]
	}
	fmt.Fprint(p.out, clearLine+string(line))
}

// Follow shows the states it is given until the channel is closed, and keeps the spinner turning in between.
func (p *Printer) Follow(states <-chan []board.Part) {
	ticker := time.NewTicker(frameEvery)
	defer ticker.Stop()
	defer p.Clear()
	var last []board.Part
	for {
		select {
		case parts, ok := <-states:
			if !ok {
				return
			}
			last = parts
			p.Show(parts)
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
