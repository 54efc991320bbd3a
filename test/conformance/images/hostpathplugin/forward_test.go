package main

import (
	"bufio"
	"context"
	"net"
	"path/filepath"
	"testing"
)

// A call goes through to the driver and its answer comes back, over connections that either side opened first; and when the
// driver goes, its caller learns of it.
func TestForward(t *testing.T) {
	for name, driverFirst := range map[string]bool{"driver first": true, "caller first": false} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			callers, err := listen(ctx, filepath.Join(t.TempDir(), "csi.sock"))
			if err != nil {
				t.Fatal(err)
			}
			drivers, err := listen(ctx, "tcp://127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- forward(ctx, callers, drivers) }()
			var caller, driver net.Conn
			if driverFirst {
				driver, caller = dial(t, drivers), dial(t, callers)
			} else {
				caller, driver = dial(t, callers), dial(t, drivers)
			}
			for _, way := range [][2]net.Conn{{caller, driver}, {driver, caller}} {
				if _, err := way[0].Write([]byte("line\n")); err != nil {
					t.Fatal(err)
				}
				if got, err := bufio.NewReader(way[1]).ReadString('\n'); err != nil || got != "line\n" {
					t.Fatalf("read %q, %v", got, err)
				}
			}
			_ = driver.Close()
			if _, err := caller.Read(make([]byte, 1)); err == nil {
				t.Error("the driver has closed its connection, and the caller's is still open")
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func dial(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	conn, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
