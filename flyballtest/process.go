package flyballtest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// killTimeout is how long the system may take to end a killed process.
const killTimeout = 10 * time.Second

// process is a process of the cluster. It ends when its standard input is closed, and therefore
// with this process.
type process struct {
	name  string
	log   string // path of the file
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ready chan struct{} // closed when it has written "ready" to its standard output
	ended chan struct{}
	err   error // valid once ended is closed
}

// command describes how to start a process.
type command struct {
	name    string   // in messages, and of the log file
	program string   // path
	args    []string // including the name of the program
	env     []string
	logDir  string
}

func (c command) start() (*process, error) {
	p := &process{name: c.name, log: filepath.Join(c.logDir, c.name+".log"), ready: make(chan struct{}), ended: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", c.name, err)
	}
	defer log.Close() // the process has one of its own
	p.cmd = &exec.Cmd{Path: c.program, Args: c.args, Env: c.env, Stderr: log}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.name, err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.name, err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.name, err)
	}
	go func() {
		p.read(stdout)
		err := p.cmd.Wait()
		if err == nil {
			err = errors.New("it ended by itself")
		}
		p.err = err
		close(p.ended)
	}()
	return p, nil
}

// read reads the output of a process until it ends, and closes ready when it prints that it is
// ready.
func (p *process) read(stdout io.Reader) {
	var once sync.Once
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if lines.Text() == "ready" {
			once.Do(func() { close(p.ready) })
		}
	}
	_, _ = io.Copy(io.Discard, stdout) // after a line that is too long for a scanner
}

// begin lets a process begin that was started waiting.
func (p *process) begin() error {
	if _, err := io.WriteString(p.stdin, "begin\n"); err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	return nil
}

// running reports whether the process has not ended.
func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// kill kills the process and waits until it has ended.
func (p *process) kill() error {
	_ = p.cmd.Process.Kill() // it may have ended before. Its standard input must stay open until then.
	select {
	case <-p.ended:
		return nil
	case <-time.After(killTimeout):
		return fmt.Errorf("killing %s (process %d): it has not ended within %s", p.name, p.cmd.Process.Pid, killTimeout)
	}
}

// failure returns why a process has ended that should run, with the end of its log.
func (p *process) failure() error {
	return fmt.Errorf("%s has ended: %w; the end of its log:\n%s", p.name, p.err, p.tail(20))
}

// tail returns the last lines of the log.
func (p *process) tail(lines int) string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return "  (" + err.Error() + ")"
	}
	all := strings.Split(string(bytes.TrimSpace(data)), "\n")
	return "  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}

// logged reports whether the log contains a text.
func (p *process) logged(text string) bool {
	data, err := os.ReadFile(p.log)
	return err == nil && bytes.Contains(data, []byte(text))
}
