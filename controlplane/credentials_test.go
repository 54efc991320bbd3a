package controlplane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// TestCertificatesRenewed runs a control plane for longer than its certificates live: it presents a
// new one, and all its clients go on.
func TestCertificatesRenewed(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole control plane")
	}
	ctx := t.Context()
	dir, port := t.TempDir(), freePort(t)
	t.Setenv(childEnv+"_PORT", strconv.Itoa(port))
	t.Setenv(childEnv+"_LIFE", "30s")
	cfg := testConfig(dir)
	startProcess(t, dir, port).awaitUp(t)

	// These have read their files once, as the components of the process have.
	clients := map[string]kubernetes.Interface{}
	for _, path := range []string{
		cfg.server("kubeconfig", "controllers.kubeconfig"), filepath.Join(cfg.DataDir, "agent", "kubelet.kubeconfig"),
		filepath.Join(cfg.DataDir, "agent", "proxy.kubeconfig"), filepath.Join(cfg.DataDir, "agent", "dns.kubeconfig"),
	} {
		clients[path] = connect(t, path)
	}
	works := func(c kubernetes.Interface) error {
		_, err := c.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		return err
	}
	for path, c := range clients {
		if err := works(c); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	first := presented(ctx, t, port)
	eventually(t, "kube-apiserver presents a new certificate", func() bool {
		return presented(ctx, t, port).SerialNumber.Cmp(first.SerialNumber) != 0
	})
	eventually(t, "the first certificates have expired", func() bool { return time.Now().After(first.NotAfter.Add(time.Second)) })
	for path, c := range clients {
		eventually(t, path+" is still good", func() bool { return works(c) == nil })
	}
	if now := presented(ctx, t, port); time.Now().After(now.NotAfter) {
		t.Errorf("kube-apiserver presents a certificate that expired at %v", now.NotAfter)
	}
	// The scheduler, the controllers and their informers have outlived their first certificates
	// too.
	testControllers(ctx, t, connect(t, cfg.AdminKubeconfig))
}

// presented is the certificate that kube-apiserver shows.
func presented(ctx context.Context, t *testing.T, port int) *x509.Certificate {
	t.Helper()
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
}
