package join

import (
	"cmp"
	"context"
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
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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

	patience, retry, answer time.Duration // startPatience, retryEvery and answerWithin if zero
}

// Join makes the machine a node of the cluster, or returns an error that says what is in the way. Nothing is left behind
// then that would keep it from another try. It does not make the Node object; the kubelet does.
func Join(ctx context.Context, cfg Config) (*Cluster, error) {
	cfg.patience, cfg.retry, cfg.answer = cmp.Or(cfg.patience, startPatience), cmp.Or(cfg.retry, retryEvery), cmp.Or(cfg.answer, answerWithin)
	p := &patience{cfg: cfg, until: time.Now().Add(cfg.patience)}
	ca, err := discover(ctx, p)
	if err != nil {
		return nil, err
	}
	caPEM, err := certutil.EncodeCertificates(ca)
	if err != nil {
		return nil, fmt.Errorf("encoding the cluster's authority: %w", err)
	}
	trusted := rest.TLSClientConfig{CAData: caPEM}
	if p.anybody, err = newClient(&rest.Config{Host: cfg.Server, TLSClientConfig: trusted}); err != nil {
		return nil, err
	}
	client, err := newClient(&rest.Config{Host: cfg.Server, BearerToken: cfg.Token.Bearer(), TLSClientConfig: trusted})
	if err != nil {
		return nil, err
	}
	cluster, err := facts(ctx, client, p)
	if err != nil {
		return nil, err
	}
	if err := checkName(ctx, client, p); err != nil {
		return nil, err
	}
	cert, key, err := requestClient(ctx, client, p)
	if err != nil {
		return nil, err
	}
	return cluster, cluster.save(cfg.Dir, caPEM, cert, key)
}

// save writes everything that a start without the token needs.
func (c *Cluster) save(dir string, ca, cert, key []byte) error {
	// Others may pass the data directory: containers reach their own files in it.
	if err := errors.Join(os.MkdirAll(filepath.Dir(dir), 0o711), os.MkdirAll(dir, 0o700)); err != nil {
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

// Move records that the server or this machine has another address. The server's authority is still the same, or the
// parts will say that it is not.
func (c *Cluster) Move(dir, server string, nodeIP netip.Addr) error {
	c.Server, c.NodeIP = server, nodeIP.String()
	if err := c.writeKubeconfigs(dir); err != nil {
		return err
	}
	return c.write(dir)
}

// writeKubeconfigs refers to the certificate by its file, so that client-go follows it when it is renewed.
func (c *Cluster) writeKubeconfigs(dir string) error {
	const name = "flyball"
	pair := current(dir, clientPair)
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
func checkName(ctx context.Context, client kubernetes.Interface, p *patience) error {
	node, err := patiently(ctx, p, func(ctx context.Context) (*v1.Node, error) {
		node, err := client.CoreV1().Nodes().Get(ctx, p.cfg.NodeName, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, nil //nolint:nilnil // nobody has the name
		}
		return node, err
	})
	switch {
	case err != nil:
		return p.refused(ctx, fmt.Sprintf("asking %s whether the node name %s is free", p.cfg.Server, p.cfg.NodeName), err)
	case node == nil:
		return nil
	}
	return nameTaken(node, p.cfg.NodeIP.String())
}

// subject is who a node is (https://kubernetes.io/docs/reference/access-authn-authz/node/).
func subject(nodeName string) pkix.Name {
	return pkix.Name{CommonName: "system:node:" + nodeName, Organization: []string{"system:nodes"}}
}

// requestClient obtains the node's client certificate with the token.
func requestClient(ctx context.Context, client kubernetes.Interface, p *patience) (cert, key []byte, err error) {
	doing := fmt.Sprintf("obtaining a certificate for node %s from %s", p.cfg.NodeName, p.cfg.Server)
	private, request, err := newRequest(p.cfg.NodeName)
	if err == nil {
		key, err = keyutil.MarshalPrivateKeyToPEM(private)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", doing, err)
	}
	type made struct {
		name string
		uid  types.UID
	}
	r, err := patiently(ctx, p, func(ctx context.Context) (r made, err error) {
		r.name, r.uid, err = csr.RequestCertificateWithContext(ctx, client, request, "", certificatesv1.KubeAPIServerClientKubeletSignerName, nil,
			certificate.DefaultKubeletClientGetUsages(private), private)
		return r, err
	})
	if err != nil {
		return nil, nil, p.refused(ctx, doing, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, approveWithin, fmt.Errorf("nobody has within %s", approveWithin))
	defer cancel()
	if cert, err = csr.WaitForCertificate(ctx, client, r.name, r.uid); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx) // upstream's does not say what it waited for
		}
		return nil, nil, fmt.Errorf("%s: waiting until kube-controller-manager approves CertificateSigningRequest %s: %w; `flyball kubectl describe csr %s` on the server says more",
			doing, r.name, err, r.name)
	}
	return cert, key, nil
}

// newRequest makes a key, and the request to certify it.
func newRequest(nodeName string) (*ecdsa.PrivateKey, []byte, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	request, err := certutil.MakeCSRFromTemplate(private, &x509.CertificateRequest{Subject: subject(nodeName)})
	if err != nil {
		return nil, nil, fmt.Errorf("making a certificate signing request: %w", err)
	}
	return private, request, nil
}
