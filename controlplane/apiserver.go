package controlplane

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	upstream "k8s.io/kubernetes/pkg/controlplane/apiserver"

	"flyball.dev/controlplane/space"
)

// shutdownGrace is how long requests in flight, watches among them, may take when kube-apiserver stops.
const shutdownGrace = time.Second

// identityRenewal is how often kube-apiserver renews the Lease that names it, which is valid for an hour. Upstream's ten
// seconds would be a third of all that an idle node writes to its disk.
const identityRenewal = 20 * time.Minute

// apiServerFlags are the flags of kube-apiserver that differ from upstream's defaults, in upstream's documented terms.
func apiServerFlags(cfg Config, c *credentials, encryption string) []string {
	issuer := "https://kubernetes.default.svc." + cfg.ClusterDomain
	return append(presenceFlags(cfg), []string{
		"--advertise-address=" + cfg.NodeIP.String(),
		"--bind-address=" + cfg.BindAddress.String(),
		"--secure-port=" + cfg.port(),
		"--tls-cert-file=" + c.servingCert,
		"--tls-private-key-file=" + c.servingCert,
		"--etcd-servers=unix://" + cfg.etcdSocket(),
		"--encryption-provider-config=" + encryption,
		"--service-cluster-ip-range=" + cfg.ServiceCIDR.String(),
		"--allow-privileged=true",
		"--profiling=false",
		// Who may do what. Bootstrap tokens are how machines join; without such a Secret there is none.
		"--client-ca-file=" + c.ca.CertPath,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--enable-bootstrap-token-auth=true",
		"--service-account-issuer=" + issuer,
		"--api-audiences=" + issuer,
		"--service-account-signing-key-file=" + c.serviceAccountKey,
		"--service-account-key-file=" + c.serviceAccountKey,
		// How it reaches kubelets: by address, since nobody promises that node names resolve.
		"--kubelet-certificate-authority=" + c.ca.CertPath,
		"--kubelet-client-certificate=" + c.kubeletClient,
		"--kubelet-client-key=" + c.kubeletClient,
		"--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
		// How it reaches aggregated API servers: at their Pods, so that it does not depend on a proxy on this machine.
		"--enable-aggregator-routing=true",
		"--proxy-client-cert-file=" + c.frontProxyClient,
		"--proxy-client-key-file=" + c.frontProxyClient,
		"--requestheader-client-ca-file=" + c.frontProxyCA.CertPath,
		"--requestheader-allowed-names=" + userFrontProxy,
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		// Ends watches at once when stopping instead of waiting a minute for clients to hang up.
		"--shutdown-watch-termination-grace-period=" + shutdownGrace.String(),
	}...)
}

// presenceFlags say how kube-apiserver lets others know that it is there. One that is alone writes its address into the
// Endpoints of the Service "kubernetes" once; several must each renew two leases in etcd every ten seconds, the second of
// which is how they find one another.
func presenceFlags(cfg Config) []string {
	if cfg.OtherServers {
		return nil
	}
	return []string{"--endpoint-reconciler-type=master-count", "--feature-gates=UnknownVersionInteroperabilityProxy=false"}
}

// parseAPIServer turns flags into options, as the command does.
func parseAPIServer(flags []string) (*options.ServerRunOptions, error) {
	o := options.NewServerRunOptions()
	if err := parse(o.Flags(), flags); err != nil {
		return nil, fmt.Errorf("configuring kube-apiserver: %w", err)
	}
	return o, nil
}

// runAPIServer serves on listener until ctx ends. The listener is open already, so that a taken port is noticed before
// anything is started, and so that whoever connects early waits for the answer instead of polling.
func runAPIServer(ctx context.Context, o *options.ServerRunOptions, listener net.Listener, guard *space.Guard) error {
	o.SecureServing.Listener = listener
	upstream.IdentityLeaseRenewIntervalPeriod = identityRenewal
	return APIServer{Options: o, CloseGrace: shutdownGrace / 4, WrapAPI: guard.Wrap}.Run(ctx)
}

// waitReady is WaitReady for the client of a kubeconfig.
func waitReady(ctx context.Context, kubeconfig string) error {
	rc, err := loadKubeconfig(kubeconfig)
	if err != nil {
		return err
	}
	return WaitReady(ctx, rc)
}

// WaitReady returns when /readyz answers that kube-apiserver is ready, or when ctx ends, with an error then. kube-apiserver
// has no event for that: the question is a request to this process and is repeated quickly.
func WaitReady(ctx context.Context, rc *rest.Config) error { return waitOK(ctx, rc, "/readyz") }

// waitOK returns when kube-apiserver answers a GET of path without an error. It asks sooner again than kube-apiserver
// recommends (Retry-After: 1).
func waitOK(ctx context.Context, rc *rest.Config, path string) error {
	client, err := rest.HTTPClientFor(rc)
	if err != nil {
		return fmt.Errorf("connecting to kube-apiserver: %w", err)
	}
	defer client.CloseIdleConnections()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, rc.Host+path, nil)
		if err != nil {
			return fmt.Errorf("asking kube-apiserver for %s: %w", path, err)
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// loadKubeconfig makes a client configuration without client-side limits: kube-apiserver has priority and fairness.
func loadKubeconfig(path string) (*rest.Config, error) {
	rc, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig %s: %w", path, err)
	}
	rc.QPS = -1
	return rc, nil
}
