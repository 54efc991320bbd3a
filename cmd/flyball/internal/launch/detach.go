package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"flyball.dev/host/board"
	"flyball.dev/host/instance"
	"flyball.dev/host/logging"
	"flyball.dev/host/progress"
	"flyball.dev/host/status"
)

// ListeningFD is the descriptor that a child in the background closes once its status can be asked for.
const ListeningFD = 3

// lastWords is how much of a dead child's standard error is shown.
const lastWords = 4096

// readyWithin is how long --detach waits for the node. What takes longer goes on in the background, and is told of.
const readyWithin = 5 * time.Minute

// Detach starts this program again with args in a session of its own, and shows its progress on out until the node is
// Ready. If the child ends before that, its error is returned; if ctx ends, the child is ended too.
func Detach(ctx context.Context, o Options, args []string, out *os.File) error {
	words := filepath.Join(filepath.Dir(logging.Path(o.Set.Config.DataDir)), "flyball.err")
	if err := makeDirs(o.Set.Config.DataDir); err != nil {
		return err
	}
	cmd, listening, err := startChild(args, words, o.Set.Proxy)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended, its last words tell
		close(ended)
	}()

	began := time.Now()
	printer := progress.New(out, began)
	states, drawn := make(chan []board.Part), make(chan struct{})
	go func() { printer.Follow(states); close(drawn) }()
	// Reads end when the child listens, or is dead.
	_, _ = io.Copy(io.Discard, listening)
	var last []board.Part
	watchCtx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	err = status.Watch(watchCtx, o.Role.Socket(instance.RunDir), func(s status.Status) bool {
		last = s.Parts
		states <- last
		return !Settled(last)
	})
	close(states)
	<-drawn
	switch {
	case ctx.Err() != nil:
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		return errors.New("starting flyball: interrupted; it was stopped again")
	case err != nil && watchCtx.Err() == nil:
		<-ended // only a dying process stops answering
		return errors.New(readLastWords(words))
	}
	if err := Failed(last); err != nil {
		return fmt.Errorf("flyball runs, but %w; it goes on trying, see `flyball status` and %s", err, logging.Path(o.Set.Config.DataDir))
	}
	return nil
}

// startChild runs this program in a session of its own. Its standard error goes to a file, since a panic must have a
// place to go to when nobody follows any more. It gets the proxy that was taken out of this process's environment.
func startChild(args []string, words string, proxy []string) (*exec.Cmd, *os.File, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, fmt.Errorf("finding this program: %w", err)
	}
	stderr, err := os.OpenFile(words, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return nil, nil, fmt.Errorf("opening %s: %w", words, err)
	}
	defer stderr.Close()
	listening, childEnd, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("opening a pipe: %w", err)
	}
	defer childEnd.Close()
	cmd := exec.Command(self, args...) //nolint:noctx // it is to outlive every context of this process
	cmd.Stdout, cmd.Stderr = stderr, stderr
	cmd.Env = append(os.Environ(), proxy...)
	cmd.ExtraFiles = []*os.File{childEnd}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("starting flyball in the background: %w", err)
	}
	return cmd, listening, nil
}

// readLastWords returns what the dead child wrote last: its error, or the end of what it wrote.
func readLastWords(path string) string {
	data, err := os.ReadFile(path)
	if err != nil || len(data) == 0 {
		return "flyball ended without a word; see the log beside " + path
	}
	if len(data) > lastWords {
		data = data[len(data)-lastWords:]
	}
	text := strings.TrimSpace(string(data))
	if i := strings.LastIndex("\n"+text, "\n"+progress.ErrorPrefix); i >= 0 {
		return text[i+len(progress.ErrorPrefix):]
	}
	return text
}
