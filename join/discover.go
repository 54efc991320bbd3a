package join

import (
	"context"
	"crypto/x509"
	"fmt"

	v1 "k8s.io/api/core/v1"
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

// discover asks a server that is not trusted yet for its authority, and returns that if it is the one that the token
// pins. Nothing secret is sent: who answers may be anybody.
func discover(ctx context.Context, p *patience) (*x509.Certificate, error) {
	server := p.cfg.Server
	client, err := newClient(&rest.Config{Host: server, TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
	if err != nil {
		return nil, err
	}
	info, err := patiently(ctx, p, func(ctx context.Context) (*v1.ConfigMap, error) {
		return client.CoreV1().ConfigMaps(metav1.NamespacePublic).Get(ctx, bootstrapapi.ConfigMapClusterInfo, metav1.GetOptions{})
	})
	if err != nil {
		return nil, p.refused(ctx, "asking "+server+" which cluster it serves", err)
	}
	config, err := clientcmd.Load([]byte(info.Data[bootstrapapi.KubeConfigKey]))
	if err != nil {
		return nil, fmt.Errorf("reading what %s says of its cluster: %w; is it a Flyball server?", server, err)
	}
	return pinned(server, config.Clusters[""], p.cfg.Token.Pin)
}

// facts asks for what a node has to know of its cluster.
func facts(ctx context.Context, client kubernetes.Interface, p *patience) (*Cluster, error) {
	cfg, server := p.cfg, p.cfg.Server
	cm, err := patiently(ctx, p, func(ctx context.Context) (*v1.ConfigMap, error) {
		return client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, FactsConfigMap, metav1.GetOptions{})
	})
	if err != nil {
		return nil, p.refused(ctx, "joining the cluster at "+server, err)
	}
	c := &Cluster{
		Server: server, NodeName: cfg.NodeName, NodeIP: cfg.NodeIP.String(),
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
