package programs

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"

	"flyball.dev/controlplane"
)

// podRanges are candidates for the range of Pod addresses, a /24 per node. The first that does not
// overlap with the Services' range is used: no packet is ever sent there.
var podRanges = []netip.Prefix{netip.MustParsePrefix("10.128.0.0/9"), netip.MustParsePrefix("172.16.0.0/12")}

// RunControllers is a Behind: it runs kube-scheduler and upstream's controllers, except those of
// ReplicaSets and Deployments, as the server's own user. The token controller signs with the
// server's key.
func RunControllers(ctx context.Context, server Server, up func()) error {
	dir, err := os.MkdirTemp("", "flyball-envtest-")
	if err != nil {
		return fmt.Errorf("creating a directory for the controllers: %w", err)
	}
	defer os.RemoveAll(dir)
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := writeKubeconfig(kubeconfig, server.Client); err != nil {
		return err
	}
	var starting sync.WaitGroup
	starting.Add(2)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return controlplane.ControllerManager(ctx, controllerManagerFlags(server.Options, kubeconfig), starting.Done)
	})
	g.Go(func() error { return controlplane.Scheduler(ctx, clientFlags(kubeconfig), starting.Done) })
	started := make(chan struct{})
	go func() { starting.Wait(); close(started) }()
	g.Go(func() error {
		select {
		case <-started:
		case <-ctx.Done():
			return nil
		}
		_ = os.RemoveAll(dir) // upstream's programs have read the file, which holds an administrator's token
		up()
		// The collector watches every kind. There is no garbage yet, so it starts last.
		return collectGarbage(ctx, server.Client)
	})
	return g.Wait()
}

func controllerManagerFlags(o *options.ServerRunOptions, kubeconfig string) []string {
	services := o.ServiceClusterIPRanges
	flags := append(clientFlags(kubeconfig),
		"--controllers="+strings.Join([]string{
			"*",
			"-" + names.ReplicaSetController, "-" + names.DeploymentController, // package controllers has ours
			"-" + names.GarbageCollectorController, // collectGarbage runs it
			// It publishes CAs, and the server's certificate may come without its CA.
			"-" + names.KubeAPIServerClusterTrustBundlePublisherController,
		}, ","),
		"--root-ca-file="+o.SecureServing.ServerCert.CertKey.CertFile, // what clients verify this server with
		"--allocate-node-cidrs=true",
		"--cluster-cidr="+podRange(services).String(),
		"--service-cluster-ip-range="+services,
		// It creates this directory, and test suites remove its parent.
		"--flex-volume-plugin-dir="+filepath.Join(o.SecureServing.ServerCert.CertDirectory, "flexvolume"),
		"--controller-shutdown-timeout=100ms",
	)
	if key := o.ServiceAccountSigningKeyFile; key != "" {
		flags = append(flags, "--service-account-private-key-file="+key)
	}
	return flags
}

func clientFlags(kubeconfig string) []string {
	return []string{
		"--kubeconfig=" + kubeconfig, "--leader-elect=false", "--secure-port=0", "--profiling=false",
		"--kube-api-qps=10000", "--kube-api-burst=10000",
	}
}

// podRange is the first of podRanges that overlaps with none of the Services' ranges, a list with
// commas.
func podRange(services string) netip.Prefix {
	for _, candidate := range podRanges {
		free := true
		for service := range strings.SplitSeq(services, ",") {
			prefix, err := netip.ParsePrefix(strings.TrimSpace(service))
			free = free && (err != nil || !candidate.Overlaps(prefix))
		}
		if free {
			return candidate
		}
	}
	return podRanges[0]
}

// writeKubeconfig writes the kubeconfig of upstream's programs.
func writeKubeconfig(path string, client *rest.Config) error {
	const name = "flyball"
	config := api.Config{
		Clusters: map[string]*api.Cluster{name: {
			Server: client.Host, CertificateAuthorityData: client.CAData, TLSServerName: client.ServerName,
		}},
		AuthInfos:      map[string]*api.AuthInfo{name: {Token: client.BearerToken}},
		Contexts:       map[string]*api.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}
	if err := clientcmd.WriteToFile(config, path); err != nil {
		return fmt.Errorf("writing the controllers' kubeconfig: %w", err)
	}
	return nil
}
