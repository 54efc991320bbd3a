package join

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	certutil "k8s.io/client-go/util/cert"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
)

// FactsConfigMap is the ConfigMap in kube-system by which the control plane tells those who join what Cluster holds. Its
// keys are those of cluster.yaml.
const FactsConfigMap = "flyball-cluster"

const (
	// answerWithin bounds one request to a server that may not be there.
	answerWithin = 10 * time.Second
	// startPatience is how long a server that answers may take until it knows its cluster: machines are often started
	// together.
	startPatience = 30 * time.Second
	retryEvery    = 500 * time.Millisecond
)

// discover asks a server that is not trusted yet for its authority, and returns that if it is the one that the token
// pins. Nothing secret is sent: who answers may be anybody.
func discover(ctx context.Context, cfg Config) (*x509.Certificate, error) {
	server := cfg.Server
	client, err := newClient(&rest.Config{Host: server, TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
	if err != nil {
		return nil, err
	}
	info, err := patiently(ctx, cfg.patience, func(ctx context.Context) (*v1.ConfigMap, error) {
		return client.CoreV1().ConfigMaps(metav1.NamespacePublic).Get(ctx, bootstrapapi.ConfigMapClusterInfo, metav1.GetOptions{})
	})
	switch {
	case apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		return nil, fmt.Errorf("asking %s which cluster it serves: %w; is it a Flyball server that has finished starting?", server, err)
	case err != nil:
		return nil, unreachable(server, err)
	}
	config, err := clientcmd.Load([]byte(info.Data[bootstrapapi.KubeConfigKey]))
	if err != nil {
		return nil, fmt.Errorf("reading what %s says of its cluster: %w; is it a Flyball server?", server, err)
	}
	return pinned(server, config.Clusters[""], cfg.Token.Pin)
}

// patiently repeats a request while the server is there and not ready for it.
func patiently[T any](ctx context.Context, patience time.Duration, ask func(context.Context) (T, error)) (T, error) {
	deadline := time.Now().Add(patience)
	for {
		one, cancel := context.WithTimeout(ctx, answerWithin)
		answer, err := ask(one)
		cancel()
		starting := apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err)
		if !starting || time.Now().After(deadline) {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return answer, err
		case <-time.After(retryEvery):
		}
	}
}

func unreachable(server string, err error) error {
	if wrong := (x509.HostnameError{}); errors.As(err, &wrong) {
		return fmt.Errorf("trusting the server at %s: %w; use one of the names or addresses that its certificate is for", server, err)
	}
	return fmt.Errorf("reaching the server at %s: %w; check that it runs (`flyball status` there), that this machine may reach its port, and --server", server, err)
}

// newClient is a client of a server as it was told, without limits of its own.
func newClient(c *rest.Config) (kubernetes.Interface, error) {
	c.QPS, c.UserAgent, c.ContentType = -1, "flyball-join", "application/json"
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("preparing to reach the server at %s: %w", c.Host, err)
	}
	return client, nil
}

// facts asks for what a node has to know of its cluster.
func facts(ctx context.Context, client kubernetes.Interface, cfg Config) (*Cluster, error) {
	server := cfg.Server
	cm, err := patiently(ctx, cfg.patience, func(ctx context.Context) (*v1.ConfigMap, error) {
		return client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, FactsConfigMap, metav1.GetOptions{})
	})
	switch {
	case apierrors.IsUnauthorized(err):
		return nil, fmt.Errorf("joining the cluster at %s: the server does not accept the token %s: it has expired, was deleted, or its secret is wrong; make a new one with `flyball token create` on the server", server, cfg.Token.ID)
	case apierrors.IsForbidden(err) || apierrors.IsNotFound(err):
		return nil, fmt.Errorf("asking %s what a node has to know of its cluster: %w; is it a Flyball server of this version?", server, err)
	case err != nil:
		return nil, unreachable(server, err)
	}
	c := &Cluster{
		Server: server, NodeName: cfg.NodeName,
		ClusterCIDR: cm.Data["clusterCIDR"], ServiceCIDR: cm.Data["serviceCIDR"],
		ClusterDNS: cm.Data["clusterDNS"], ClusterDomain: cm.Data["clusterDomain"],
	}
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("reading what %s says of its cluster in ConfigMap %s/%s: %w", server, metav1.NamespaceSystem, FactsConfigMap, err)
	}
	return c, nil
}

// parseAuthorities reads the certificates of PEM data.
func parseAuthorities(server string, data []byte) ([]*x509.Certificate, error) {
	certs, err := certutil.ParseCertsPEM(data)
	if err != nil {
		return nil, fmt.Errorf("reading the authority of the cluster at %s: %w; is it a Flyball server?", server, err)
	}
	return certs, nil
}

func pinned(server string, cluster *clientcmdapi.Cluster, pin string) (*x509.Certificate, error) {
	if cluster == nil {
		return nil, fmt.Errorf("reading what %s says of its cluster: there is no authority in it; is it a Flyball server?", server)
	}
	certs, err := parseAuthorities(server, cluster.CertificateAuthorityData)
	if err != nil {
		return nil, err
	}
	return choose(server, certs, pin)
}
