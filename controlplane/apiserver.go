package controlplane

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"

	"flyball.dev/internal/kubeconfig"
)

// shutdownGrace is how long requests in flight, including watches, may take when kube-apiserver
// stops.
const shutdownGrace = time.Second

// startGrace is how long kube-apiserver may take to become ready after it was asked to stop. It is
// long, because a post-start hook that is interrupted ends the process, and shorter than the half
// minute after which `flyball down` kills.
const startGrace = 20 * time.Second

// runAPIServer serves the API. Its listener is open already, so that a port in use is noticed
// before anything starts, and early clients wait for the answer instead of polling.
func (s *server) runAPIServer(ctx context.Context, up func()) error {
	rc, err := kubeconfig.Client(s.cfg.kubeconfig("admin"))
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ready := make(chan struct{})
	go func() {
		if WaitReady(serving, rc) == nil {
			close(ready)
			up()
		}
	}()
	context.AfterFunc(ctx, func() {
		defer stop()
		select {
		case <-ready:
		case <-serving.Done():
		case <-time.After(startGrace):
		}
	})
	return APIServer{Options: s.apiServer, CloseGrace: shutdownGrace / 4, WrapAPI: s.guard.Wrap}.Run(serving)
}

// apiServerFlags are the flags of kube-apiserver that differ from upstream's defaults, in
// upstream's documented terms.
func apiServerFlags(cfg Config, c *credentials, encryption string) []string {
	issuer := "https://kubernetes.default.svc." + cfg.ClusterDomain
	return append(presenceFlags(cfg), []string{
		"--advertise-address=" + cfg.NodeIPs[0].String(),
		"--bind-address=" + cfg.BindAddress.String(),
		"--secure-port=" + cfg.port(),
		"--tls-cert-file=" + c.servingCert,
		"--tls-private-key-file=" + c.servingCert,
		"--etcd-servers=unix://" + cfg.etcdSocket(),
		"--encryption-provider-config=" + encryption,
		"--service-cluster-ip-range=" + commas(cfg.ServiceCIDRs),
		"--allow-privileged=true",
		"--profiling=false",
		// Authentication and authorization. Nodes join with bootstrap tokens, which are Secrets.
		"--client-ca-file=" + c.ca.CertPath,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--enable-bootstrap-token-auth=true",
		"--service-account-issuer=" + issuer,
		"--api-audiences=" + issuer,
		"--service-account-signing-key-file=" + c.serviceAccountKey,
		"--service-account-key-file=" + c.serviceAccountKey,
		// It reaches kubelets by address, since node names need not resolve.
		"--kubelet-certificate-authority=" + c.ca.CertPath,
		"--kubelet-client-certificate=" + c.kubeletClient,
		"--kubelet-client-key=" + c.kubeletClient,
		"--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
		// It reaches aggregated API servers at their Pods, so that it does not depend on a service
		// proxy on this host.
		"--enable-aggregator-routing=true",
		"--proxy-client-cert-file=" + c.frontProxyClient,
		"--proxy-client-key-file=" + c.frontProxyClient,
		"--requestheader-client-ca-file=" + c.frontProxyCA.CertPath,
		"--requestheader-allowed-names=" + userFrontProxy,
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		// Watches end at once when it stops, instead of lasting a minute until their clients leave.
		"--shutdown-watch-termination-grace-period=" + shutdownGrace.String(),
	}...)
}

// presenceFlags say how kube-apiserver registers itself. An only server writes its address into the
// Endpoints of the Service "kubernetes" once. Each of several must renew two leases in etcd every
// ten seconds, and finds the others by the second one.
func presenceFlags(cfg Config) []string {
	if cfg.OtherServers {
		return nil
	}
	return []string{"--endpoint-reconciler-type=master-count", "--feature-gates=UnknownVersionInteroperabilityProxy=false"}
}

// ParseAPIServer turns flags of kube-apiserver into options, as the command does.
func ParseAPIServer(flags []string) (*options.ServerRunOptions, error) {
	o := options.NewServerRunOptions()
	if err := parse(o.Flags(), flags); err != nil {
		return nil, fmt.Errorf("configuring kube-apiserver: %w", err)
	}
	return o, nil
}

// WaitReady returns when /readyz answers that kube-apiserver is ready, or with an error when ctx
// ends. kube-apiserver has no event for that. The request goes to this process and is repeated
// quickly.
func WaitReady(ctx context.Context, rc *rest.Config) error { return waitOK(ctx, rc, "/readyz") }

// waitOK returns when kube-apiserver answers a GET of path with 200 OK. It retries sooner than
// kube-apiserver recommends (Retry-After: 1).
func waitOK(ctx context.Context, rc *rest.Config, path string) error {
	client, err := rest.HTTPClientFor(rc)
	if err != nil {
		return fmt.Errorf("connecting to kube-apiserver: %w", err)
	}
	defer client.CloseIdleConnections()
	return wait.PollUntilContextCancel(ctx, 10*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, rc.Host+path, nil)
		if err != nil {
			return false, fmt.Errorf("asking kube-apiserver for %s: %w", path, err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return false, nil //nolint:nilerr // it is repeated
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK, nil
	})
}
