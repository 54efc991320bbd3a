//go:build linux

// Package launch makes this process a Flyball of its host, in the foreground or in the background, and shows how far the start
// is. The caller says which components run; package supervisor runs them.
package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"k8s.io/klog/v2"

	"flyball.dev/apis/config/v1alpha1"
	"flyball.dev/host/bundle"
	"flyball.dev/host/instance"
	"flyball.dev/host/logging"
	"flyball.dev/host/progress"
	"flyball.dev/host/status"
	"flyball.dev/host/supervisor"
)

// interruptHint ends the progress in the foreground.
const interruptHint = "Interrupt to stop; Pods run on, and the next start finds them. `flyball down` ends them too."

// Options say what this process is.
type Options struct {
	// Role of this process.
	Role instance.Role
	// RunDir is where the lock and the status socket lie.
	RunDir string
	// Config is the configuration in use. It is recorded in RunDir for `flyball down`.
	Config v1alpha1.FlyballConfiguration
	// Out shows the progress; nil in the background.
	Out *os.File
	// Detached says that Detach has started this process. It closes ListeningFD once its status is served.
	Detached bool
	// Settled is called once when the start is over, to release what only the start needed. Optional.
	Settled func() error
}

// Process is this process while it has its role.
type Process struct {
	// Log is the log file.
	Log io.WriteCloser

	options Options
	lock    *instance.Lock
}

// Start takes the role, records the configuration and opens the log. Nobody else has the role until Close.
func Start(o Options) (*Process, error) {
	lock, err := instance.Acquire(o.RunDir, o.Role)
	if err != nil {
		return nil, err
	}
	p := &Process{options: o, lock: lock}
	err = lock.Record(o.Config)
	if err == nil {
		p.Log, err = openLog(o.Config.DataDir)
	}
	if err != nil {
		lock.Release()
		return nil, err
	}
	return p, nil
}

// Close closes the log and releases the role.
func (p *Process) Close() {
	p.Log.Close()
	p.lock.Release()
}

// Run runs the components until ctx ends, and serves their status and shows their progress meanwhile. Pods and the container
// runtime run on, so that the next start finds them.
func (p *Process) Run(ctx context.Context, s *supervisor.Supervisor) error {
	l, err := status.Listen(p.options.Role.Socket(p.options.RunDir))
	if err != nil {
		return err
	}
	if p.options.Detached {
		os.NewFile(ListeningFD, "listening").Close()
	}
	var serving, starting sync.WaitGroup
	defer serving.Wait()
	// Until the very end, so that watchers see the components stop.
	serveCtx, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	serving.Go(func() {
		if err := status.Serve(serveCtx, l, p.about(), &s.Status); err != nil {
			klog.FromContext(ctx).Error(err, "The status is not served any more")
		}
	})
	defer starting.Wait()
	startCtx, stopStarting := context.WithCancel(ctx)
	defer stopStarting()
	starting.Go(func() { p.settle(startCtx, &s.Status) })
	if p.options.Out != nil {
		starting.Go(func() { show(startCtx, p.options.Out, &s.Status) })
	}
	return s.Run(ctx)
}

// settle calls Settled when the start is over.
func (p *Process) settle(ctx context.Context, t *status.Table) {
	if p.options.Settled == nil || t.WaitSettled(ctx) != nil {
		return
	}
	if err := p.options.Settled(); err != nil {
		klog.FromContext(ctx).Error(err, "The memory that the start needed is kept")
	}
}

func (p *Process) about() status.Status {
	return status.Status{
		Role: string(p.options.Role), PID: os.Getpid(), Version: bundle.Version(),
		NodeName: p.options.Config.NodeName, DataDir: p.options.Config.DataDir, StartedAt: time.Now(),
	}
}

// show draws the progress until the start is over.
func show(ctx context.Context, out *os.File, t *status.Table) {
	states, drawn := make(chan []status.Component), make(chan struct{})
	go func() {
		defer close(drawn)
		progress.New(out, time.Now()).Follow(states)
	}()
	settled := send(ctx, t, states)
	close(states)
	<-drawn
	if settled {
		fmt.Fprintln(out, interruptHint)
	}
}

// send sends the components after each change. It returns true when the start is over, and false when ctx ends first.
func send(ctx context.Context, t *status.Table, states chan<- []status.Component) bool {
	for {
		components, settled, changed := t.Snapshot()
		select {
		case states <- components:
		case <-ctx.Done():
			return false
		}
		if settled {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// openLog opens the log file. It is used in the foreground too: what upstream's components log while they start is not for a
// terminal.
func openLog(dataDir string) (io.WriteCloser, error) {
	if err := makeDirs(dataDir); err != nil {
		return nil, err
	}
	// A healthy cluster logs nothing. The file is created nevertheless: the control plane reserves space
	// for it, so that a line can be written when the disk is full.
	file, err := os.OpenFile(logging.Path(dataDir), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		return nil, fmt.Errorf("creating the log: %w", err)
	}
	file.Close()
	return logging.File(dataDir), nil
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
