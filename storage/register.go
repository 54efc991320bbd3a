package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"flyball.dev/storage/driver"
)

// register serves, until ctx ends, what the kubelet registers the driver by. The socket appears once
// the driver answers at endpoint, and goes before the driver does. Report is called with the
// outcome of each registration, nil for success.
func register(ctx context.Context, kubeletDir, endpoint string, report func(error)) error {
	listening, err := listen(filepath.Join(kubeletDir, "plugins_registry", driver.Name+"-reg.sock"))
	if err != nil {
		return fmt.Errorf("registering %s with the kubelet: %w", driver.Name, err)
	}
	server := grpc.NewServer()
	registerapi.RegisterRegistrationServer(server, &registrar{endpoint: endpoint, report: report})
	defer context.AfterFunc(ctx, server.Stop)()
	if err := server.Serve(listening); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serving the registration of %s: %w", driver.Name, err)
	}
	return nil
}

// listen listens on a socket, in place of one that a process left which was killed.
func listen(socket string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o750); err != nil {
		return nil, fmt.Errorf("creating the directory of a socket: %w", err)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing the socket of an earlier process: %w", err)
	}
	return net.Listen("unix", socket)
}

// registrar implements the service that the kubelet calls (pluginregistration/v1).
type registrar struct {
	registerapi.UnimplementedRegistrationServer

	endpoint string
	report   func(error)
}

func (r *registrar) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{
		Type: registerapi.CSIPlugin, Name: driver.Name, Endpoint: r.endpoint, SupportedVersions: []string{"1.0.0"},
	}, nil
}

// NotifyRegistrationStatus is called after each attempt to register the driver.
func (r *registrar) NotifyRegistrationStatus(_ context.Context, status *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	var err error
	if !status.PluginRegistered {
		err = fmt.Errorf("registering %s with the kubelet: %s", driver.Name, status.Error)
	}
	r.report(err)
	return &registerapi.RegistrationStatusResponse{}, nil
}
