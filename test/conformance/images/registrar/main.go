// Command registrar is the image csi-node-driver-registrar: it offers a CSI driver to the node agent, by a socket in the
// directory of plugin registrations. The original's source is in no Go module. It takes those of the original's flags that
// the suite's manifests set.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		klog.ErrorS(err, "Stopping")
		klog.FlushAndExit(klog.ExitFlushTimeout, 1)
	}
}

func run(ctx context.Context) error {
	klog.InitFlags(nil)
	address := flag.String("csi-address", "/run/csi/socket", "socket of the driver, as this container sees it")
	path := flag.String("kubelet-registration-path", "", "socket of the driver, as the node agent sees it")
	dir := flag.String("plugin-registration-path", "/registration", "directory of plugin registrations")
	timeout := flag.Duration("timeout", time.Second, "how long one call of the driver may take")
	health := flag.String("http-endpoint", "", "address for /healthz; empty for none")
	flag.Parse()

	name, err := driverName(ctx, *address, *timeout)
	if err != nil {
		return err
	}
	klog.InfoS("Found the driver", "name", name)
	socket := filepath.Join(*dir, name+"-reg.sock")
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return offer(ctx, socket, name, *path) })
	if *health != "" {
		group.Go(func() error { return serveHealth(ctx, *health, socket) })
	}
	return group.Wait()
}

// driverName asks the driver for its name, for as long as it takes: its container may start later.
func driverName(ctx context.Context, address string, timeout time.Duration) (string, error) {
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", fmt.Errorf("connecting to the driver: %w", err)
	}
	defer func() { _ = conn.Close() }()
	retry := time.NewTicker(100 * time.Millisecond)
	defer retry.Stop()
	for {
		info, err := pluginInfo(ctx, csi.NewIdentityClient(conn), timeout)
		if err == nil {
			return info.GetName(), nil
		}
		klog.V(2).InfoS("The driver does not answer yet", "err", err)
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("asking the driver for its name: %w", err)
		case <-retry.C:
		}
	}
}

func pluginInfo(ctx context.Context, client csi.IdentityClient, timeout time.Duration) (*csi.GetPluginInfoResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return client.GetPluginInfo(ctx, &csi.GetPluginInfoRequest{}, grpc.WaitForReady(true))
}

// offer serves the registration until ctx ends or the node agent refuses the driver.
func offer(ctx context.Context, socket, name, endpoint string) error {
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("removing an old registration: %w", err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("offering the driver: %w", err)
	}
	plugin := &plugin{
		info:    registration.PluginInfo{Type: registration.CSIPlugin, Name: name, Endpoint: endpoint, SupportedVersions: []string{"1.0.0"}},
		refused: make(chan error, 1),
	}
	server := grpc.NewServer()
	registration.RegisterRegistrationServer(server, plugin)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer server.Stop() // removes the socket, too
	select {
	case <-ctx.Done():
		return nil
	case err := <-plugin.refused:
		return err
	case err := <-served:
		return fmt.Errorf("offering the driver: %w", err)
	}
}

type plugin struct {
	registration.UnimplementedRegistrationServer
	info    registration.PluginInfo
	refused chan error
}

// GetInfo says what there is to register.
func (p *plugin) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	klog.InfoS("The node agent asks for the driver")
	return &p.info, nil
}

// NotifyRegistrationStatus learns whether the node agent took the driver. If it did not, the container ends, and the next one
// offers the driver again.
func (p *plugin) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	klog.InfoS("The node agent answered", "registered", status.GetPluginRegistered(), "error", status.GetError())
	if !status.GetPluginRegistered() {
		select {
		case p.refused <- errors.New("the node agent refused the driver: " + status.GetError()):
		default:
		}
	}
	return &registration.RegistrationStatusResponse{}, nil
}

// serveHealth answers /healthz: healthy is a registration that is still there.
func serveHealth(ctx context.Context, address, socket string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat(socket); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	server := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving /healthz: %w", err)
	}
	return nil
}
