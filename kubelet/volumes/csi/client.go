package csi

import (
	"context"
	"fmt"
	"path"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	// callTimeout of each call is upstream's.
	callTimeout = 2 * time.Minute
	// A driver that was restarted is found again so soon.
	reconnectMin, reconnectMax = 20 * time.Millisecond, time.Second
)

// dial makes the connection to a driver, which is opened by the first call. Every call has a timeout
// and is measured, and its error says what was called.
func dial(name, socket string, seconds *prometheus.HistogramVec) (*grpc.ClientConn, error) {
	reconnect := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: reconnectMin, Multiplier: 1.6, Jitter: .2, MaxDelay: reconnectMax},
		MinConnectTimeout: 5 * time.Second,
	}
	call := func(
		ctx context.Context, method string, request, reply any, conn *grpc.ClientConn,
		invoke grpc.UnaryInvoker, options ...grpc.CallOption,
	) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		begun := time.Now()
		err := invoke(ctx, method, request, reply, conn, options...)
		seconds.WithLabelValues(name, method, status.Code(err).String(), "false").Observe(time.Since(begun).Seconds())
		if err != nil {
			return fmt.Errorf("calling %s of CSI driver %s: %w", path.Base(method), name, err)
		}
		return nil
	}
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"), grpc.WithConnectParams(reconnect), grpc.WithUnaryInterceptor(call))
	if err != nil {
		return nil, fmt.Errorf("connecting to CSI driver %s: %w", name, err)
	}
	return conn, nil
}

// newSeconds is upstream's metric.
func newSeconds() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "csi_operations_seconds", Help: "How long calls of CSI drivers took, by driver, method and result.",
		Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600},
	}, []string{"driver_name", "method_name", "grpc_status_code", "migrated"})
}

// capabilitiesOf asks the driver what its Node service can do.
func capabilitiesOf(ctx context.Context, client csipb.NodeClient) (capabilities, error) {
	answer, err := client.NodeGetCapabilities(ctx, &csipb.NodeGetCapabilitiesRequest{})
	if err != nil {
		return nil, err
	}
	found := capabilities{}
	for _, c := range answer.GetCapabilities() {
		found.Insert(c.GetRpc().GetType())
	}
	return found, nil
}

// isFinal says whether the driver does nothing any more about a call that it answered with this
// error: https://github.com/container-storage-interface/spec/blob/master/spec.md#error-scheme
func isFinal(err error) bool {
	switch status.Code(err) {
	case codes.Unknown: // also what is not an answer at all
		_, answered := status.FromError(err)
		return answered
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted:
		return false
	}
	return true
}
