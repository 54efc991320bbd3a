//go:build linux

package containerd

import (
	"cmp"
	"context"
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
	// startTimeout is how long containerd may take until CRI answers: containerd loads all
	// containers first.
	startTimeout = time.Minute
	// stopGrace is how long containerd may take to exit after SIGTERM.
	stopGrace = 10 * time.Second
	// dialInterval is the time between two connection attempts while containerd starts.
	dialInterval = 10 * time.Millisecond
	// Each restart waits a second longer than the one before, up to maxBackOff. A containerd that
	// ran for steadyAfter resets the delay.
	steadyAfter = 10 * time.Second
	maxBackOff  = 10 * time.Second
)

// Run starts containerd, or adopts one that runs with cfg's configuration file, and restarts it
// when it exits. It calls cfg.Ready when CRI answers and cfg.Down when containerd has exited or
// cannot be restarted. It returns when ctx is cancelled, and leaves containerd running. It returns
// an error if the first start fails.
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
	var logTask sync.WaitGroup
	defer logTask.Wait()
	defer cancel()
	logTask.Go(func() { truncateLog(ctx, cfg.LogFile) })

	first, backOff := true, time.Duration(0)
	for {
		p, err := ensureRunning(ctx, cfg)
		switch {
		case ctx.Err() != nil:
			if p != nil {
				p.release()
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
			err = p.wait(ctx)
			p.release()
			if ctx.Err() != nil {
				return nil
			}
			err = cmp.Or(err, fmt.Errorf("process %d ended", p.pid))
			log.Error(err, "Restarting containerd", "log", cfg.LogFile)
			cfg.reportDown(fmt.Errorf("running containerd: %w; see %s", err, cfg.LogFile))
			if time.Since(up) >= steadyAfter {
				backOff = 0
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backOff):
		}
		backOff = min(backOff+time.Second, maxBackOff)
	}
}

func (c Config) reportDown(err error) {
	if c.Down != nil {
		c.Down(err)
	}
}

// ensureRunning returns a containerd whose CRI answers: the running one if up to date, or a new
// one.
func ensureRunning(ctx context.Context, c Config) (*process, error) {
	config, err := render(c, detectHost())
	if err != nil {
		return nil, err
	}
	p, err := findRunning(c)
	if err != nil {
		return nil, err
	}
	if p != nil && !upToDate(c, p, config) {
		klog.FromContext(ctx).V(1).Info("Restarting containerd, its program or configuration changed", "pid", p.pid)
		if err := p.stop(ctx, stopGrace); err != nil {
			return nil, fmt.Errorf("replacing the running containerd: %w", err)
		}
		p.release()
		p = nil
	}
	if p == nil {
		if err := os.WriteFile(c.configFile(), config, 0o600); err != nil {
			return nil, fmt.Errorf("writing containerd's configuration: %w", err)
		}
		// A killed containerd leaves its socket file behind, and nobody listens on it.
		_ = os.Remove(c.Socket)
		if p, err = start(c); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(c.pidFile(), []byte(strconv.Itoa(p.pid)+"\n"), 0o644); err != nil {
		return nil, fmt.Errorf("writing containerd's pid file: %w", err)
	}
	if err := awaitCRI(ctx, c, p); err != nil {
		// Stop it, so that the next attempt starts a new one; unless it is Flyball that is stopping,
		// which leaves containerd running.
		if ctx.Err() == nil {
			_ = p.stop(ctx, stopGrace)
		}
		p.release()
		return nil, err
	}
	return p, nil
}

// awaitCRI returns when CRI answers. containerd listens before its CRI plugin has loaded the
// containers, so a connection is not enough.
func awaitCRI(ctx context.Context, c Config, p *process) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("starting containerd: it did not answer on %s within %s; see %s", c.Socket, startTimeout, c.LogFile))
	exited, waitDone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(waitDone)
		if p.wait(ctx) == nil {
			close(exited)
		}
	}()
	defer func() { cancel(); <-waitDone }() // the caller waits for p next, and p allows one wait at a time
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
		case <-exited:
			return fmt.Errorf("starting containerd: it exited before it answered on %s; the last line of %s is: %s", c.Socket, c.LogFile, lastLine(c.LogFile))
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// dialCRI returns a client connection for a runtime's socket. It connects at the first call.
func dialCRI(socket string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return nil, fmt.Errorf("connecting to the container runtime at %s: %w", socket, err)
	}
	return conn, nil
}
