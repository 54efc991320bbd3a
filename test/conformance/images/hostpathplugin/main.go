// Command hostpathplugin stands in for the CSI hostpath driver where the suite deploys it as its mock driver: the original's
// source is in no Go module. With -proxy-endpoint it passes the bytes of CSI calls on to the mock that runs inside e2e.test;
// otherwise it is that mock, upstream's own, in the cluster. It takes those of the original's flags that the suite's
// manifests set.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/test/e2e/storage/drivers/csi-test/driver"
	"k8s.io/kubernetes/test/e2e/storage/drivers/csi-test/mock/service"
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
	var endpoint, proxy string
	var attach bool
	var config service.Config
	klog.InitFlags(nil)
	flag.StringVar(&endpoint, "endpoint", "/csi/csi.sock", "socket for the callers of the driver")
	flag.StringVar(&proxy, "proxy-endpoint", "", "where the driver itself connects, such as tcp://:9000; empty runs it here")
	flag.StringVar(&config.DriverName, "drivername", "mock.storage.k8s.io", "name of the driver")
	flag.Int64Var(&config.AttachLimit, "attach-limit", 0, "how many volumes the node takes; 0 says nothing about that")
	flag.BoolVar(&attach, "enable-attach", false, "volumes need to be attached")
	flag.BoolVar(&config.EnableTopology, "enable-topology", false, "volumes belong to this node")
	flag.BoolVar(&config.NodeExpansionRequired, "node-expand-required", false, "the node has its part in growing a volume")
	flag.String("nodeid", "", "not used: the mock calls its one node after the driver")
	flag.String("statedir", "", "not used: the mock keeps no data")
	flag.Parse()
	config.DisableAttach = !attach

	callers, err := listen(ctx, endpoint)
	if err != nil {
		return err
	}
	if proxy == "" {
		return serve(ctx, callers, config)
	}
	drivers, err := listen(ctx, proxy)
	if err != nil {
		return err
	}
	return forward(ctx, callers, drivers)
}

// listen listens on an endpoint: the path of a socket, unix://PATH or tcp://ADDRESS.
func listen(ctx context.Context, endpoint string) (net.Listener, error) {
	network, address, ok := strings.Cut(endpoint, "://")
	if !ok {
		network, address = "unix", endpoint
	}
	if network == "unix" {
		// That of an earlier container of the Pod.
		if err := os.Remove(address); err != nil && !os.IsNotExist(err) {
			return nil, fmt.Errorf("removing an old socket: %w", err)
		}
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", endpoint, err)
	}
	return l, nil
}

// serve runs the mock driver. It logs each call in the form that the suite reads from the container's log.
func serve(ctx context.Context, callers net.Listener, config service.Config) error {
	mock := inline{service.New(config), map[string]bool{}, &sync.Mutex{}}
	server := driver.NewCSIDriver(&driver.CSIDriverServers{Controller: mock, Identity: mock, Node: mock})
	if err := server.Start(callers, nil); err != nil {
		return fmt.Errorf("starting the mock driver: %w", err)
	}
	<-ctx.Done()
	server.Stop()
	return nil
}
