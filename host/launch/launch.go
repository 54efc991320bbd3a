//go:build linux

// Package launch runs Flyball on its host, in the foreground or in the background, shows the
// progress of its start, and stops it. The Program returns the components; package supervisor runs
// them.
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
	"sync"
	"syscall"
	"time"

	"k8s.io/klog/v2"

	"flyball.dev/apis/config/v1alpha1"
	"flyball.dev/host/bundle"
	"flyball.dev/host/checks"
	"flyball.dev/host/instance"
	"flyball.dev/host/logging"
	"flyball.dev/host/progress"
	"flyball.dev/host/status"
	"flyball.dev/host/supervisor"
	"flyball.dev/host/teardown"
)

// interruptHint ends the progress in the foreground.
const interruptHint = "Interrupt to stop; Pods run on, and the next start finds them. `flyball down` stops them too."

// gcPercent trades CPU for memory: the heap of an idle control plane is mostly caches that live for
// ever, and with Go's default the garbage may grow to the same size before it is collected.
const gcPercent = 50

// stopTimeout is how long a process may take to stop its components before it is killed.
const stopTimeout = 30 * time.Second

// Program has the components that a process runs on its host, and removes what they leave there.
type Program interface {
	// CheckHost checks whether the host has what the components need.
	CheckHost() []checks.Finding
	// Components returns the components. None has been started.
	Components() *supervisor.Supervisor
	// Fresh reports whether no Pod can be running here.
	Fresh() bool
	// Teardown returns the steps that remove what the components leave; the last ones remove all
	// data if purge is set. When a step fails, the later steps are still worth trying.
	Teardown(purge bool) []teardown.Step
}

// Options are the role of this process, its directories and its log.
type Options struct {
	// Role of this process.
	Role instance.Role
	// RunDir is where the lock and the status socket lie.
	RunDir string
	// Config is the configuration in use. It is recorded in RunDir for `flyball down`.
	Config v1alpha1.FlyballConfiguration
	// Background is set if Detach has started this process, which then shows no progress.
	Background bool
	// LogTo is called once, before anything logs, to send all logs of this process to w.
	LogTo func(w io.Writer, verbosity int) error
	// Settled is called once when the start is over, to release what only the start needed.
	// Optional.
	Settled func() error

	restarted bool // by a Restarter
}

// Run runs the program until ctx is cancelled. Pods and the container runtime run on, so that the
// next start finds them. A first start that fails is undone.
func Run(ctx context.Context, o Options, p Program) error {
	o.restarted = IsRestarted()
	switch {
	case o.Background:
		// The parent has checked the host. Relative paths are resolved by now, and the working
		// directory may be removed later.
		if err := os.Chdir("/"); err != nil {
			return fmt.Errorf("changing to the root directory: %w", err)
		}
	case !o.restarted: // a restarted process waits for what the host lacks since its first start
		if err := checkHost(o, p); err != nil {
			return err
		}
	}
	lock, err := instance.Acquire(o.RunDir, o.Role)
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := lock.Record(o.Config); err != nil {
		return err
	}
	log, err := openLog(o.Config.DataDir)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := o.LogTo(log, o.Config.Logging.Verbosity); err != nil {
		return err
	}
	debug.SetGCPercent(gcPercent)
	components, fresh := p.Components(), p.Fresh()
	err = o.run(ctx, components)
	if err != nil && fresh && o.Role != instance.Server && !components.Status.WasReady() {
		for _, step := range p.Teardown(false) {
			err = errors.Join(err, step.Run(context.WithoutCancel(ctx)))
		}
	}
	return err
}

// checkHost refuses to start where the start would fail half-way.
func checkHost(o Options, p Program) error {
	if pids := instance.Running(o.RunDir, o.Role); len(pids) > 0 {
		return &instance.RunningError{PID: pids[0]}
	}
	began := time.Now()
	if err := checks.Missing(p.CheckHost()); err != nil {
		return fmt.Errorf("checking this host: %w", err)
	}
	progress.New(os.Stdout, began).Done("host checks", time.Since(began))
	return nil
}

// run runs the components until ctx is cancelled, and serves their status and shows their progress
// meanwhile.
func (o Options) run(ctx context.Context, s *supervisor.Supervisor) error {
	l, err := status.Listen(o.Role.Socket(o.RunDir))
	if err != nil {
		return err
	}
	if o.Background && !o.restarted {
		os.NewFile(listeningFD, "listening").Close()
	}
	var serving, starting sync.WaitGroup
	defer serving.Wait()
	// Until the very end, so that watchers see the components stop.
	serveCtx, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	about := status.Status{
		Role: string(o.Role), PID: os.Getpid(), Version: bundle.Version(),
		NodeName: o.Config.NodeName, DataDir: o.Config.DataDir, StartedAt: time.Now(),
	}
	serving.Go(func() {
		if err := status.Serve(serveCtx, l, about, &s.Status); err != nil {
			klog.FromContext(ctx).Error(err, "The status is not served any more")
		}
	})
	defer starting.Wait()
	startCtx, stopStarting := context.WithCancel(ctx)
	defer stopStarting()
	starting.Go(func() { o.follow(startCtx, &s.Status) })
	return s.Run(ctx)
}

// follow draws the progress, in the foreground, until the start is over. It calls Settled then.
func (o Options) follow(ctx context.Context, t *status.Table) {
	var states chan<- []status.Component
	stop := func() {}
	if !o.Background {
		states, stop = progress.New(os.Stdout, time.Now()).Follow()
	}
	over := false
	for components, settled := range t.Changes(ctx) {
		if states != nil {
			states <- components
		}
		if over = settled; over {
			break
		}
	}
	stop()
	if over && !o.Background {
		fmt.Println(interruptHint)
	}
	if over && o.Settled != nil {
		if err := o.Settled(); err != nil {
			klog.FromContext(ctx).Error(err, "The memory that the start needed is kept")
		}
	}
}

// Stop stops every Flyball of this host and removes what it left. The steps are shown by printer.
func Stop(ctx context.Context, runDir string, p Program, purge bool, printer *progress.Printer) error {
	if pids := instance.Running(runDir, instance.Up); len(pids) > 0 {
		began := time.Now()
		// Of a server and an agent, the agent is the younger process: it stops first.
		for _, pid := range slices.Backward(pids) {
			if err := instance.Terminate(ctx, pid, stopTimeout); err != nil {
				return err
			}
		}
		printer.Done("stopping flyball", time.Since(began))
	}
	// Nothing starts while this process removes.
	lock, err := instance.Acquire(runDir, instance.Up)
	if err != nil {
		return err
	}
	defer lock.Release()
	var errs []error
	for _, step := range p.Teardown(purge) {
		began := time.Now()
		if err := step.Run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", step.Name, err))
			printer.Failed(step.Name, err)
			continue
		}
		printer.Done(step.Name, time.Since(began))
	}
	return errors.Join(errs...)
}

// openLog opens the log file. It is used in the foreground too: what upstream's components log
// while they start is not for a terminal.
func openLog(dataDir string) (io.WriteCloser, error) {
	if err := makeDirs(dataDir); err != nil {
		return nil, err
	}
	// A healthy cluster logs nothing. The file is created nevertheless: the control plane reserves
	// space for it, so that a line can be written when the disk is full.
	file, err := os.OpenFile(logging.Path(dataDir), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		return nil, fmt.Errorf("creating the log: %w", err)
	}
	file.Close()
	return logging.File(dataDir), nil
}

// makeDirs creates the data directory, and the log's directory in it.
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
