// Package launch brings the parts of a machine up in this process or in one of its own, and shows how far they are. What
// the parts are stays with package parts, their life cycle with package supervisor.
package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/klog/v2"

	"flyball.dev/cmd/flyball/internal/parts"
	"flyball.dev/cmd/flyball/internal/teardown"
	"flyball.dev/controlplane"
	"flyball.dev/host/board"
	"flyball.dev/host/bundle"
	"flyball.dev/host/instance"
	"flyball.dev/host/logging"
	"flyball.dev/host/progress"
	"flyball.dev/host/status"
	"flyball.dev/host/supervisor"
)

// gcPercent trades CPU for memory: the heap of an idle control plane is mostly caches that live for ever, and Go's
// default would let garbage grow to as much again before it is collected.
const gcPercent = 50

// interruptHint ends the progress in the foreground.
const interruptHint = "Interrupt to stop; Pods run on, and the next start finds them. `flyball down` ends them too."

// Options say what to run.
type Options struct {
	// Role of this process.
	Role instance.Role
	// Set makes the parts of the role.
	Set parts.Set
	// Out shows the progress; nil for a process in the background.
	Out *os.File
	// Listening is closed once the status can be asked for. Optional.
	Listening io.Closer
}

func (o Options) parts() []supervisor.Part {
	switch o.Role {
	case instance.Server:
		return o.Set.Server()
	case instance.Agent:
		return o.Set.Agent()
	}
	return o.Set.Up()
}

// Run runs the parts until ctx ends, and stops them but leaves Pods and the container runtime running, so that the next
// start finds them as they are.
func Run(ctx context.Context, o Options) error {
	cfg := o.Set.Config
	lock, err := instance.Acquire(instance.RunDir, o.Role)
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := lock.Record(cfg.FlyballConfiguration); err != nil {
		return err
	}
	logs, err := openLog(o)
	if err != nil {
		return err
	}
	defer logs.Close()
	if err := logging.Setup(logs, cfg.Logging.Verbosity); err != nil {
		return err
	}
	debug.SetGCPercent(gcPercent)

	ps := o.parts()
	b := board.New(supervisor.Rows(ps)...)
	stopServing, err := serveStatus(ctx, o, b)
	if err != nil {
		return err
	}
	defer stopServing()
	stopShowing := show(ctx, o.Out, b)
	defer stopShowing()

	stopSettling := settle(ctx, b)
	defer stopSettling()
	untouched := fresh(o.Set)
	err = supervisor.Run(ctx, b, ps)
	if err != nil && untouched && o.Role != instance.Server && !wasReady(b) {
		return errors.Join(err, undo(ctx, o.Set))
	}
	return err
}

// openLog opens the log file. It is the same whether somebody looks on or not: what upstream's parts have to say while
// they start is not for a terminal.
func openLog(o Options) (io.WriteCloser, error) {
	if err := makeDirs(o.Set.Config.DataDir); err != nil {
		return nil, err
	}
	// A healthy cluster logs nothing. The file is created nevertheless: the control plane reserves space
	// for it, so that a line can be written when the disk is full.
	file, err := os.OpenFile(logging.Path(o.Set.Config.DataDir), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		return nil, fmt.Errorf("creating the log: %w", err)
	}
	file.Close()
	return logging.File(o.Set.Config.DataDir), nil
}

// makeDirs makes the data directory, and that of the log in it.
func makeDirs(dataDir string) error {
	// Others may pass: containers reach their own files below.
	if err := os.MkdirAll(dataDir, 0o711); err != nil {
		return fmt.Errorf("creating the data directory: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(logging.Path(dataDir)), 0o750); err != nil {
		return fmt.Errorf("creating the log directory: %w", err)
	}
	return nil
}

func serveStatus(ctx context.Context, o Options, b *board.Board) (func(), error) {
	l, err := status.Listen(o.Role.Socket(instance.RunDir))
	if err != nil {
		return nil, err
	}
	if o.Listening != nil {
		o.Listening.Close()
	}
	// Until the very end, so that whoever follows sees the parts stop.
	serveCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	about := status.Status{
		Role: string(o.Role), PID: os.Getpid(), Version: bundle.Version(),
		NodeName: o.Set.Config.NodeName, DataDir: o.Set.Config.DataDir, StartedAt: time.Now(),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := status.Serve(serveCtx, l, about, b); err != nil {
			klog.FromContext(ctx).Error(err, "The status is not served any more")
		}
	}()
	return func() { stop(); <-done }, nil
}

// show draws the progress until everything is up.
func show(ctx context.Context, out *os.File, b *board.Board) func() {
	if out == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	states, done := make(chan []board.Part), make(chan struct{})
	printer := progress.New(out, time.Now())
	settled := false // read once states is closed
	go func() {
		defer close(done)
		printer.Follow(states)
		if settled {
			fmt.Fprintln(out, interruptHint)
		}
	}()
	go func() {
		defer close(states)
		for {
			ps, changed := b.Snapshot()
			select {
			case states <- ps:
			case <-ctx.Done():
				return
			}
			if Settled(ps) {
				settled = true
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// Settled tells whether the start is over: every part is up, or has said why it is not.
func Settled(ps []board.Part) bool {
	for _, p := range ps {
		if p.Name == parts.Kubelet && p.State != board.Up {
			return false
		}
		if p.State == board.Waiting || p.State == board.Starting && p.LastError == "" {
			return false
		}
	}
	return true
}

// Failed names the parts that are not up, with their errors.
func Failed(ps []board.Part) error {
	var lines []string
	for _, p := range ps {
		if p.State != board.Up {
			lines = append(lines, fmt.Sprintf("%s is %s: %s", p.Name, p.State, p.LastError))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return errors.New(strings.Join(lines, "; "))
}

// fresh tells whether no Pod can be running here: there is neither a runtime that answers nor the state of one that died,
// beside which containers run on.
func fresh(s parts.Set) bool {
	if _, err := os.Stat(s.Containerd().StateDir); err == nil {
		return false
	}
	return !s.RuntimeAnswers()
}

// settle gives back, once everything is up, the memory that only the start needed. The function that it returns ends it.
func settle(ctx context.Context, b *board.Board) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var settling sync.WaitGroup
	settling.Go(func() {
		for {
			ps, changed := b.Snapshot()
			if Settled(ps) {
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
		if err := controlplane.Settle(); err != nil {
			klog.FromContext(ctx).Error(err, "The memory that the start needed is kept")
		}
	})
	return func() { cancel(); settling.Wait() }
}

// wasReady tells whether the Node was ever Ready.
func wasReady(b *board.Board) bool {
	ps, _ := b.Snapshot()
	return slices.ContainsFunc(ps, func(p board.Part) bool { return p.Name == parts.Kubelet && p.Took > 0 })
}

// undo leaves nothing half started.
func undo(ctx context.Context, s parts.Set) error {
	var errs []error
	for _, step := range teardown.Steps(s, instance.RunDir, false) {
		errs = append(errs, step.Run(context.WithoutCancel(ctx)))
	}
	return errors.Join(errs...)
}
