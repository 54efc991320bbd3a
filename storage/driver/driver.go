//go:build linux

package driver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Driver serves the CSI services.
type Driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer

	config Config
	quota  quotas
	locks  locks
	// room is locked while the free space is divided.
	room sync.Mutex
	// Copying goes on when the caller does not wait any longer, until the driver stops.
	copying singleflight.Group
	work    sync.WaitGroup
	ctx     context.Context
	stop    context.CancelFunc
}

// New returns a driver. It touches nothing until it serves.
func New(config Config) *Driver {
	if config.ReservePercent == 0 {
		config.ReservePercent = 10
	}
	d := &Driver{config: config, quota: projects}
	d.ctx, d.stop = context.WithCancel(context.Background())
	return d
}

func (d *Driver) bases() []string { return append([]string{d.config.Dir}, d.config.Paths...) }

// List returns all volumes in the order of their ids, with their use of the disk.
func (d *Driver) List() ([]*Volume, error) { return d.list(volumes, "") }

// Serve recovers from the end of the last process, and then serves on a unix socket until ctx ends.
// A driver serves once.
func (d *Driver) Serve(ctx context.Context, socket string) error {
	if err := d.recover(); err != nil {
		return fmt.Errorf("recovering volumes in %s: %w", d.config.Dir, err)
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o750); err != nil {
		return fmt.Errorf("making the directory of the driver's socket: %w", err)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing the socket of an earlier process: %w", err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listening on the driver's socket: %w", err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(withStatus(logr.FromContextOrDiscard(ctx))))
	csi.RegisterIdentityServer(server, d)
	csi.RegisterControllerServer(server, d)
	csi.RegisterNodeServer(server, d)
	stopped := context.AfterFunc(ctx, func() {
		d.stop() // so that nobody waits for a copy
		server.GracefulStop()
	})
	defer stopped()
	err = server.Serve(listener)
	d.stop()
	d.work.Wait()
	return err
}

// withStatus gives errors the code that callers decide by, and logs them.
func withStatus(log logr.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		response, err := handle(ctx, request)
		if err == nil {
			return response, nil
		}
		log.V(1).Info("A call failed", "method", info.FullMethod, "err", err)
		var coded interface{ GRPCStatus() *status.Status }
		code := codes.Internal
		switch {
		case errors.As(err, &coded):
			return nil, coded.GRPCStatus().Err()
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
			code = codes.ResourceExhausted
		case errors.Is(err, unix.EFBIG):
			code = codes.OutOfRange
		case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			code = codes.Aborted
		}
		return nil, status.Error(code, err.Error())
	}
}

// recover needs no record of what the last process was doing.
func (d *Driver) recover() error {
	vs, err := d.List()
	for _, v := range vs {
		err = errors.Join(err, v.thaw())
	}
	return errors.Join(err, d.removeUnfinished())
}

// inBackground makes a volume or snapshot. A caller that does not wait for the end gets the result
// by calling again, as the CSI specification wants it for calls that time out.
func (d *Driver) inBackground(ctx context.Context, folder, id string, do func(context.Context) (*Volume, error)) (*Volume, error) {
	done := d.copying.DoChan(folder+"/"+id, func() (any, error) {
		d.work.Add(1)
		defer d.work.Done()
		return do(d.ctx)
	})
	select {
	case result := <-done:
		v, _ := result.Val.(*Volume)
		return v, result.Err
	case <-ctx.Done():
		return nil, status.Errorf(codes.Aborted, "%s/%s is still being made", folder, id)
	}
}

// locks has one lock per volume. It forgets none; each has few bytes.
type locks struct{ held sync.Map }

// lock returns what unlocks the volume again.
func (l *locks) lock(ctx context.Context, id string) (unlock func(), err error) {
	held, _ := l.held.LoadOrStore(id, make(chan struct{}, 1))
	lock := held.(chan struct{})
	select {
	case lock <- struct{}{}:
		return func() { <-lock }, nil
	case <-ctx.Done():
		return nil, status.Errorf(codes.Aborted, "volume %s is busy: another call for it has not ended", id)
	}
}

// GetPluginInfo implements csi.IdentityServer.
func (d *Driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: Name, VendorVersion: d.config.Version}, nil
}

// Probe implements csi.IdentityServer.
func (d *Driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

// GetPluginCapabilities implements csi.IdentityServer.
func (d *Driver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	response := &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{{
		Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{
			Type: csi.PluginCapability_VolumeExpansion_ONLINE,
		}},
	}}}
	for _, service := range []csi.PluginCapability_Service_Type{
		csi.PluginCapability_Service_CONTROLLER_SERVICE, csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS,
	} {
		response.Capabilities = append(response.Capabilities, &csi.PluginCapability{
			Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: service}},
		})
	}
	return response, nil
}
