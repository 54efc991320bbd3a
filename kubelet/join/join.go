package join

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/certificate"
	"k8s.io/client-go/util/certificate/csr"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/klog/v2"
)

// approveWithin is how long the server may take to issue the certificate of a machine that joins.
const approveWithin = time.Minute

// Config says how a machine joins.
type Config struct {
	// Dir is the agent's directory. It is made.
	Dir string
	// Server is the URL of the server, https://…:6443.
	Server string
	Token  Token
	// NodeName and NodeIP are this machine's.
	NodeName string
	NodeIP   netip.Addr

	patience time.Duration // with a server that is starting; startPatience if zero
}

// Join makes the machine a node of the cluster, or returns an error that says what is in the way. Nothing is left behind
// then that would keep it from another try. It does not make the Node object; the kubelet does.
func Join(ctx context.Context, cfg Config) (*Cluster, error) {
	if cfg.patience == 0 {
		cfg.patience = startPatience
	}
	ca, err := discover(ctx, cfg)
	if err != nil {
		return nil, err
	}
	caPEM, err := certutil.EncodeCertificates(ca)
	if err != nil {
		return nil, fmt.Errorf("encoding the cluster's authority: %w", err)
	}
	client, err := newClient(&rest.Config{
		Host: cfg.Server, BearerToken: cfg.Token.Bearer(), TLSClientConfig: rest.TLSClientConfig{CAData: caPEM},
	})
	if err != nil {
		return nil, err
	}
	cluster, err := facts(ctx, client, cfg)
	if err != nil {
		return nil, err
	}
	if err := checkName(ctx, client, cfg); err != nil {
		return nil, err
	}
	cert, key, err := requestClient(ctx, client, cfg.NodeName)
	if err != nil {
		return nil, fmt.Errorf("obtaining a certificate for node %s from %s: %w", cfg.NodeName, cfg.Server, err)
	}
	return cluster, cluster.save(cfg.Dir, caPEM, cert, key)
}

// save writes everything that a start without the token needs.
func (c *Cluster) save(dir string, ca, cert, key []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the agent's directory: %w", err)
	}
	store, err := newStore(klog.Background(), clientPair, dir)
	if err != nil {
		return err
	}
	if _, err := store.Update(cert, key); err != nil {
		return fmt.Errorf("keeping the node's certificate: %w", err)
	}
	if err := writeFile(filepath.Join(dir, authorityFile), ca, 0o644); err != nil {
		return err
	}
	if err := c.writeKubeconfigs(dir); err != nil {
		return err
	}
	return c.write(dir)
}

// Move records that the server has another address. Its authority is still the same, or the parts will say that it is not.
func (c *Cluster) Move(dir, server string) error {
	c.Server = server
	if err := c.writeKubeconfigs(dir); err != nil {
		return err
	}
	return c.write(dir)
}

// writeKubeconfigs refers to the certificate by its file, so that client-go follows it when it is renewed.
func (c *Cluster) writeKubeconfigs(dir string) error {
	const name = "flyball"
	pair := filepath.Join(dir, clientPair+"-current.pem")
	data, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: c.Server, CertificateAuthority: filepath.Join(dir, authorityFile)}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {ClientCertificate: pair, ClientKey: pair}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	})
	if err != nil {
		return fmt.Errorf("encoding the node's kubeconfig: %w", err)
	}
	for _, file := range kubeconfigs {
		if err := writeFile(filepath.Join(dir, file), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// checkName refuses a name that a live machine has: its Pods and ours would be one node's.
func checkName(ctx context.Context, client kubernetes.Interface, cfg Config) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	node, err := client.CoreV1().Nodes().Get(ctx, cfg.NodeName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("asking %s whether the node name %s is free: %w", cfg.Server, cfg.NodeName, err)
	}
	return nameTaken(node, cfg.NodeIP.String())
}

// subject is who a node is (https://kubernetes.io/docs/reference/access-authn-authz/node/).
func subject(nodeName string) pkix.Name {
	return pkix.Name{CommonName: "system:node:" + nodeName, Organization: []string{"system:nodes"}}
}

func requestClient(ctx context.Context, client kubernetes.Interface, nodeName string) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	if key, err = keyutil.MarshalPrivateKeyToPEM(private); err != nil {
		return nil, nil, fmt.Errorf("encoding the key: %w", err)
	}
	request, err := certutil.MakeCSRFromTemplate(private, &x509.CertificateRequest{Subject: subject(nodeName)})
	if err != nil {
		return nil, nil, fmt.Errorf("making a certificate signing request: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, approveWithin, errors.New("nobody approved it"))
	defer cancel()
	name, uid, err := csr.RequestCertificateWithContext(ctx, client, request, "", certificatesv1.KubeAPIServerClientKubeletSignerName, nil,
		certificate.DefaultKubeletClientGetUsages(crypto.PrivateKey(private)), private)
	if err != nil {
		return nil, nil, err
	}
	cert, err = csr.WaitForCertificate(ctx, client, name, uid)
	if err != nil {
		return nil, nil, fmt.Errorf("waiting for CertificateSigningRequest %s, which kube-controller-manager approves: %w; `flyball kubectl describe csr %s` on the server says more", name, err, name)
	}
	return cert, key, nil
}

func newStore(log klog.Logger, pair, dir string) (certificate.FileStore, error) {
	store, err := certificate.NewFileStoreWithLogger(log.V(4), pair, dir, dir, "", "")
	if err != nil {
		return nil, fmt.Errorf("opening the node's certificates in %s: %w", dir, err)
	}
	return store, nil
}
