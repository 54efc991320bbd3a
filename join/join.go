package join

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/klog/v2"

	"flyball.dev/internal/atomicfile"
	"flyball.dev/internal/kubeconfig"
)

// Config is what Join needs.
type Config struct {
	// Dir is the agent's directory. It is created.
	Dir string
	// Server is the URL of the server, https://…:6443.
	Server string
	Token  Token
	// NodeName and NodeIPs, one or two, are those of the node.
	NodeName string
	NodeIPs  []netip.Addr

	startTimeout, retryEvery, requestTimeout time.Duration // the constants of these names if zero
}

// Join adds this host to the cluster as a node, or returns an error that says what to do. It leaves
// nothing behind then, so that it can be called again. It does not create the Node object; the
// kubelet does.
func Join(ctx context.Context, cfg Config) (*Cluster, error) {
	cfg.startTimeout = cmp.Or(cfg.startTimeout, startTimeout)
	cfg.retryEvery = cmp.Or(cfg.retryEvery, retryEvery)
	cfg.requestTimeout = cmp.Or(cfg.requestTimeout, requestTimeout)
	s := &session{cfg: cfg, deadline: time.Now().Add(cfg.startTimeout)}
	ca, err := discover(ctx, s)
	if err != nil {
		return nil, err
	}
	caPEM, err := certutil.EncodeCertificates(ca)
	if err != nil {
		return nil, fmt.Errorf("encoding the cluster's CA: %w", err)
	}
	trusted := rest.TLSClientConfig{CAData: caPEM}
	if s.anonymous, err = newClient(&rest.Config{Host: cfg.Server, TLSClientConfig: trusted}); err != nil {
		return nil, err
	}
	client, err := newClient(&rest.Config{Host: cfg.Server, BearerToken: cfg.Token.Bearer(), TLSClientConfig: trusted})
	if err != nil {
		return nil, err
	}
	cluster, err := settings(ctx, client, s)
	if err != nil {
		return nil, err
	}
	if err := checkName(ctx, client, s); err != nil {
		return nil, err
	}
	cert, key, err := requestClient(ctx, client, s)
	if err != nil {
		return nil, err
	}
	return cluster, cluster.save(cfg.Dir, caPEM, cert, key)
}

// save writes all files that a start without the token needs.
func (c *Cluster) save(dir string, ca, cert, key []byte) error {
	// Other users may enter the data directory: containers reach their own files in it.
	if err := errors.Join(os.MkdirAll(filepath.Dir(dir), 0o711), os.MkdirAll(dir, 0o700)); err != nil {
		return fmt.Errorf("creating the agent's directory: %w", err)
	}
	store, err := newStore(klog.Background(), clientPair, dir)
	if err != nil {
		return err
	}
	if _, err := store.Update(cert, key); err != nil {
		return fmt.Errorf("storing the node's certificate: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dir, caFile), ca, 0o644); err != nil {
		return err
	}
	if err := c.writeKubeconfigs(dir); err != nil {
		return err
	}
	return c.write(dir)
}

// Move records that the server or this host has another address. The cluster's CA must be the same;
// otherwise every client of the server reports an error.
func (c *Cluster) Move(dir, server string, nodeIPs []netip.Addr) error {
	c.Server, c.NodeIPs = server, listOf(nodeIPs)
	if err := c.writeKubeconfigs(dir); err != nil {
		return err
	}
	return c.write(dir)
}

// writeKubeconfigs refers to the certificate by its file, so that client-go reads it again when it
// is renewed.
func (c *Cluster) writeKubeconfigs(dir string) error {
	pair, cluster := current(dir, clientPair), clientcmdapi.Cluster{Server: c.Server, CertificateAuthority: filepath.Join(dir, caFile)}
	data, err := kubeconfig.Encode(cluster, "flyball", clientcmdapi.AuthInfo{ClientCertificate: pair, ClientKey: pair})
	if err != nil {
		return err
	}
	for _, file := range kubeconfigs {
		if err := atomicfile.Write(filepath.Join(dir, file), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// checkName refuses the name of a live node: its Pods and ours would belong to the same Node.
func checkName(ctx context.Context, client kubernetes.Interface, s *session) error {
	node, err := retry(ctx, s, func(ctx context.Context) (*v1.Node, error) {
		node, err := client.CoreV1().Nodes().Get(ctx, s.cfg.NodeName, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, nil //nolint:nilnil // no node has the name
		}
		return node, err
	})
	switch {
	case err != nil:
		return s.explain(ctx, fmt.Sprintf("asking %s whether the node name %s is free", s.cfg.Server, s.cfg.NodeName), err)
	case node == nil:
		return nil
	}
	return nameTaken(node, listOf(s.cfg.NodeIPs))
}

// nameTaken returns an error if a node with these addresses may not join with the name of the Node.
// A Node that is not Ready is taken over, since its host may have been replaced. A Node with one of
// the addresses is this host, which joins again.
func nameTaken(node *v1.Node, addresses List) error {
	var at string
	for _, a := range node.Status.Addresses {
		if a.Type == v1.NodeInternalIP {
			if slices.Contains(addresses, a.Address) {
				return nil
			}
			at = a.Address
		}
	}
	for _, c := range node.Status.Conditions {
		if c.Type == v1.NodeReady && c.Status == v1.ConditionTrue {
			return fmt.Errorf("joining as %s: a node with this name at %s is Ready; choose another name with --node-name, or delete that Node (`flyball kubectl delete node %s` on the server) if its host no longer exists",
				node.Name, at, node.Name)
		}
	}
	return nil
}
