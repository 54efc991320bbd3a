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

// podRanges are where nodes get their Pods' addresses from, a /24 each. The first that does not overlap with the Services'
// range is taken: nothing is ever sent there.
var podRanges = []netip.Prefix{netip.MustParsePrefix("10.128.0.0/9"), netip.MustParsePrefix("172.16.0.0/12")}

// RunControllers is a Behind: it runs kube-scheduler and upstream's controllers, except for those of ReplicaSets and
// Deployments, as the server's own user. The token controller signs with the server's key.
func RunControllers(ctx context.Context, server Server, up func()) error {
	dir, err := os.MkdirTemp("", "flyball-envtest-")
	if err != nil {
		return fmt.Errorf("making a directory for the controllers: %w", err)
	}
	defer os.RemoveAll(dir)
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := writeKubeconfig(kubeconfig, server.Client); err != nil {
		return err
	}
	// Upstream's programs read the file when they start, and until then it holds a token that may do everything.
	working := make(chan struct{})
	started := after(2, func() { _ = os.RemoveAll(dir); close(working); up() })

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return controlplane.ControllerManager(ctx, controllerManagerFlags(server.Options, kubeconfig), started)
	})
	g.Go(func() error { return controlplane.Scheduler(ctx, clientFlags(kubeconfig), started) })
	g.Go(func() error {
		// It watches every kind that there is, and nobody has made garbage yet: the others need this machine first.
		select {
		case <-working:
			return collectGarbage(ctx, server.Client)
		case <-ctx.Done():
			return nil
		}
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
			// It publishes certificate authorities, and the server's certificate need not come with its own.
			"-" + names.KubeAPIServerClusterTrustBundlePublisherController,
		}, ","),
		"--root-ca-file="+o.SecureServing.ServerCert.CertKey.CertFile, // what clients verify this server with
		"--allocate-node-cidrs=true",
		"--cluster-cidr="+podRange(services).String(),
		"--service-cluster-ip-range="+services,
		// It makes this directory, and test suites remove the one around it.
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

// podRange is the first of podRanges that overlaps with none of the Services' ranges, a list with commas.
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

// writeKubeconfig writes what upstream's programs are told about the server, for nobody else to read.
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

// after returns a function that calls do when it is called for the nth time.
func after(n int, do func()) func() {
	var mu sync.Mutex
	return func() {
		mu.Lock()
		defer mu.Unlock()
		if n--; n == 0 {
			do()
		}
	}
}
