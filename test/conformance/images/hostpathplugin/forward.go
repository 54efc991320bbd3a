package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"k8s.io/klog/v2"
)

// forward joins each connection of a caller with one that the driver has opened in advance, until ctx ends. e2e.test cannot
// be reached from a cluster, so it connects through a port-forwarding of the API server, always a few times more than there
// are callers.
func forward(ctx context.Context, callers, drivers net.Listener) error {
	stop := context.AfterFunc(ctx, func() {
		_ = callers.Close()
		_ = drivers.Close()
	})
	defer stop()
	var group sync.WaitGroup
	defer group.Wait()
	for {
		caller, err := accept(ctx, callers)
		if err != nil {
			return err
		}
		driver, err := accept(ctx, drivers)
		if err != nil {
			_ = caller.Close()
			return err
		}
		if caller == nil || driver == nil {
			return nil
		}
		group.Go(func() { join(ctx, caller, driver) })
	}
}

// accept returns the next connection, or nil when ctx has ended.
func accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	conn, err := l.Accept()
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil && errors.Is(err, net.ErrClosed):
		return nil, nil
	default:
		return nil, fmt.Errorf("accepting a connection on %s: %w", l.Addr(), err)
	}
}

// join copies both ways until either side ends or ctx does.
func join(ctx context.Context, a, b net.Conn) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	context.AfterFunc(ctx, func() {
		_ = a.Close()
		_ = b.Close()
	})
	var group sync.WaitGroup
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		group.Go(func() {
			defer end()
			if _, err := io.Copy(pair[0], pair[1]); err != nil && !errors.Is(err, net.ErrClosed) {
				klog.V(3).InfoS("A connection broke", "err", err)
			}
		})
	}
	group.Wait()
}
