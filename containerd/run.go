//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

const (
	// startTimeout is how long containerd may take until CRI answers. It loads all containers
	// first.
	startTimeout = time.Minute
	// stopGrace is how long containerd may take to end.
	stopGrace = 10 * time.Second
	// dialInterval is the time between two connection attempts while containerd starts.
	dialInterval = 10 * time.Millisecond
	// If containerd ended within steadyAfter, the delay of the next restart grows, up to
	// maxBackOff.
	steadyAfter = 10 * time.Second
	maxBackOff  = 10 * time.Second
)

// Run starts containerd, or adopts the one that runs with our configuration, and restarts it when
// it ends. It calls cfg.Ready when CRI answers and cfg.Down when containerd has ended. It returns
// when ctx ends, and leaves containerd running. It returns an error if the first start fails.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	for _, dir := range []string{cfg.RootDir, cfg.StateDir, filepath.Dir(cfg.Socket), cfg.CNIConfDir, filepath.Dir(cfg.LogFile)} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("creating the container runtime's directories: %w", err)
		}
	}
	log := klog.FromContext(ctx)
	ctx, cancel := context.WithCancel(ctx)
	var limiting sync.WaitGroup
	defer limiting.Wait()
	defer cancel()
	limiting.Go(func() { limitLog(ctx, cfg.LogFile) })

	for first, backOff := true, time.Duration(0); ; backOff = min(backOff+time.Second, maxBackOff) {
		p, err := ensure(ctx, cfg)
		switch {
		case ctx.Err() != nil:
			if p != nil {
				p.close()
			}
			return nil
		case err != nil && first:
			return err
		case err != nil:
			log.Error(err, "Restarting containerd failed")
			cfg.reportDown(err)
		default:
			if cfg.Ready != nil {
				cfg.Ready()
			}
			first = false
			up := time.Now()
			err := p.wait(ctx)
			p.close()
			if ctx.Err() != nil {
				return nil
			}
			log.Error(err, "containerd ended, restarting it", "pid", p.pid, "log", cfg.LogFile)
			cfg.reportDown(fmt.Errorf("running containerd: process %d ended; see %s", p.pid, cfg.LogFile))
			if time.Since(up) >= steadyAfter {
				backOff = 0
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backOff):
		}
	}
}

func (c Config) reportDown(err error) {
	if c.Down != nil {
		c.Down(err)
	}
}

// ensure returns a containerd whose CRI answers: the running one, if it is current, or a new one.
func ensure(ctx context.Context, c Config) (*process, error) {
	wanted, err := render(c, detectHost())
	if err != nil {
		return nil, err
	}
	p, err := find(c)
	if err != nil {
		return nil, err
	}
	if p != nil && !current(c, p, wanted) {
		klog.FromContext(ctx).V(1).Info("Restarting containerd, its program or configuration changed", "pid", p.pid)
		if err := p.end(ctx, stopGrace); err != nil {
			return nil, fmt.Errorf("replacing the running containerd: %w", err)
		}
		p.close()
		p = nil
	}
	if p == nil {
		if err := os.WriteFile(c.configFile(), wanted, 0o600); err != nil {
			return nil, fmt.Errorf("writing containerd's configuration: %w", err)
		}
		// A killed containerd leaves its socket, to which nobody listens.
		_ = os.Remove(c.Socket)
		if p, err = start(c); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(c.pidFile(), []byte(strconv.Itoa(p.pid)+"\n"), 0o644); err != nil {
		return nil, fmt.Errorf("writing containerd's pid file: %w", err)
	}
	if err := awaitCRI(ctx, c, p); err != nil {
		if ctx.Err() == nil { // the next attempt starts another one
			_ = p.end(ctx, stopGrace)
		}
		p.close()
		return nil, err
	}
	return p, nil
}

// awaitCRI returns when CRI answers. containerd listens before its CRI plugin has loaded the
// containers, so a connection is not enough.
func awaitCRI(ctx context.Context, c Config, p *process) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("starting containerd: it did not answer on %s within %s; see %s", c.Socket, startTimeout, c.LogFile))
	ended, waited := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(waited)
		if p.wait(ctx) == nil {
			close(ended)
		}
	}()
	defer func() { cancel(); <-waited }()
	conn, err := dialCRI(c.Socket)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	client := runtimeapi.NewRuntimeServiceClient(conn)
	tick := time.NewTicker(dialInterval)
	defer tick.Stop()
	for {
		// Dialing first avoids gRPC's own back-off, which begins at a second.
		if probe, err := (&net.Dialer{}).DialContext(ctx, "unix", c.Socket); err == nil {
			_ = probe.Close()
			if _, err := client.Version(ctx, &runtimeapi.VersionRequest{}); err == nil {
				return nil
			}
		}
		select {
		case <-ended:
			return fmt.Errorf("starting containerd: it ended at once; the last line of %s is: %s", c.LogFile, lastLine(c.LogFile))
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// dialCRI returns a connection to a runtime's socket. It does not wait for it.
func dialCRI(socket string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return nil, fmt.Errorf("connecting to the container runtime at %s: %w", socket, err)
	}
	return conn, nil
}

var errNotRunning = errors.New("the container runtime is not running; `flyball up` starts it")
