package join

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	certutil "k8s.io/client-go/util/cert"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
)

// FactsConfigMap is the ConfigMap in kube-system with the cluster's settings, which the control
// plane publishes for joining nodes. Its keys are those of cluster.yaml.
const FactsConfigMap = "flyball-cluster"

// discover gets the CA of a server that is not trusted yet, and returns it if the token pins it. It
// sends no secret, since anybody may answer.
func discover(ctx context.Context, s *session) (*x509.Certificate, error) {
	server := s.cfg.Server
	client, err := newClient(&rest.Config{Host: server, TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
	if err != nil {
		return nil, err
	}
	info, err := retry(ctx, s, func(ctx context.Context) (*v1.ConfigMap, error) {
		return client.CoreV1().ConfigMaps(metav1.NamespacePublic).Get(ctx, bootstrapapi.ConfigMapClusterInfo, metav1.GetOptions{})
	})
	if err != nil {
		return nil, s.explain(ctx, "asking "+server+" which cluster it serves", err)
	}
	config, err := clientcmd.Load([]byte(info.Data[bootstrapapi.KubeConfigKey]))
	if err != nil {
		return nil, fmt.Errorf("reading the cluster info of %s: %w; is it a Flyball server?", server, err)
	}
	return pinned(server, config.Clusters[""], s.cfg.Token.Pin)
}

// settings gets the cluster's settings from the server.
func settings(ctx context.Context, client kubernetes.Interface, s *session) (*Cluster, error) {
	cfg, server := s.cfg, s.cfg.Server
	cm, err := retry(ctx, s, func(ctx context.Context) (*v1.ConfigMap, error) {
		return client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, FactsConfigMap, metav1.GetOptions{})
	})
	if err != nil {
		return nil, s.explain(ctx, "joining the cluster at "+server, err)
	}
	c := &Cluster{
		Server: server, NodeName: cfg.NodeName, NodeIPs: listOf(cfg.NodeIPs),
		ClusterCIDRs: parseList(cm.Data["clusterCIDR"]), ServiceCIDRs: parseList(cm.Data["serviceCIDR"]),
		ClusterDNS: parseList(cm.Data["clusterDNS"]), ClusterDomain: cm.Data["clusterDomain"],
	}
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("reading the settings of the cluster at %s in ConfigMap %s/%s: %w", server, metav1.NamespaceSystem, FactsConfigMap, err)
	}
	return c, nil
}

// pinned returns the CA of a cluster-info kubeconfig that the token pins.
func pinned(server string, cluster *clientcmdapi.Cluster, pin string) (*x509.Certificate, error) {
	if cluster == nil {
		return nil, fmt.Errorf("reading the cluster info of %s: it has no CA; is it a Flyball server?", server)
	}
	certs, err := certutil.ParseCertsPEM(cluster.CertificateAuthorityData)
	if err != nil {
		return nil, fmt.Errorf("reading the CA of the cluster at %s: %w; is it a Flyball server?", server, err)
	}
	var found []string
	for _, c := range certs {
		have := Pin(c)
		if have == pin { // the others are not trusted: an impostor may have added them
			return c, nil
		}
		found = append(found, have)
	}
	return nil, fmt.Errorf("trusting the server at %s: the CA of its cluster has the hash %s, --token has %s: one of the two belongs to another cluster; create a token on that server with `flyball token create`, or correct --server",
		server, strings.Join(found, ", "), pin)
}
