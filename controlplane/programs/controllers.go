package programs

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/cmd/kube-controller-manager/names"

	"flyball.dev/controlplane"
	"flyball.dev/internal/kubeconfig"
)

// podRanges are candidates for the range of Pod addresses, a /24 per node. The first that does not
// overlap with the Services' range is used: no packet is ever sent there.
var podRanges = []netip.Prefix{netip.MustParsePrefix("10.128.0.0/9"), netip.MustParsePrefix("172.16.0.0/12")}

// unthrottledQPS is more than any test reaches.
const unthrottledQPS = "10000"

// RunControllers is a Behind: it runs kube-scheduler and upstream's controllers, except those of
// ReplicaSets and Deployments, as the server's own user. The token controller signs with the
// server's key.
func RunControllers(ctx context.Context, server Server, up func()) error {
	dir, err := os.MkdirTemp("", "flyball-envtest-")
	if err != nil {
		return fmt.Errorf("creating a directory for the controllers: %w", err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "kubeconfig")
	cluster := api.Cluster{
		Server: server.Client.Host, CertificateAuthorityData: server.Client.CAData, TLSServerName: server.Client.ServerName,
	}
	data, err := kubeconfig.Encode(cluster, "flyball", api.AuthInfo{Token: server.Client.BearerToken})
	if err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("writing the controllers' kubeconfig: %w", err)
	}
	return Loops{
		Awaited: []Behind{
			func(ctx context.Context, server Server, up func()) error {
				return controlplane.ControllerManager(ctx, controllerManagerFlags(server.Options, file), up)
			},
			func(ctx context.Context, _ Server, up func()) error {
				return controlplane.Scheduler(ctx, controlplane.ClientFlags(file, unthrottledQPS), up)
			},
		},
		Late: collectGarbage, // it watches every kind, and there is no garbage yet
	}.Run(ctx, server, func() {
		_ = os.RemoveAll(dir) // upstream's programs have read the file, which holds an administrator's token
		up()
	})
}

func controllerManagerFlags(o *options.ServerRunOptions, file string) []string {
	services := o.ServiceClusterIPRanges
	flags := append(controlplane.ClientFlags(file, unthrottledQPS),
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
