package join

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	certutil "k8s.io/client-go/util/cert"
)

const secret = "0123456789abcdef"

// server is as much of a Flyball server as joining needs.
type server struct {
	t    *testing.T
	url  string
	key  *ecdsa.PrivateKey
	ca   *x509.Certificate
	node *v1.Node // that exists
	// foreign answers as anything but a Flyball server.
	foreign bool
	mu      sync.Mutex
	// requests by name; two are made at once.
	requests map[string]*certificatesv1.CertificateSigningRequest
	// issued counts certificates, and old makes them so that they are to be renewed at once.
	issued int64
	old    bool
}

func newServer(t *testing.T, name string) *server {
	t.Helper()
	s := &server{t: t, requests: map[string]*certificatesv1.CertificateSigningRequest{}}
	s.key, s.ca = authority(t)
	listening := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		leaf.IPAddresses = []net.IP{ip}
	} else {
		leaf.DNSNames = []string{name}
	}
	listening.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{{Certificate: [][]byte{s.sign(leaf, key.Public())}, PrivateKey: key}}}
	listening.StartTLS()
	t.Cleanup(func() { listening.CloseClientConnections(); listening.Close() })
	s.url = listening.URL
	return s
}

func authority(t *testing.T) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, ca
}

func (s *server) sign(leaf *x509.Certificate, public crypto.PublicKey) []byte {
	der, err := x509.CreateCertificate(rand.Reader, leaf, s.ca, public, s.key)
	if err != nil {
		s.t.Error(err)
	}
	return der
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case s.foreign:
		http.NotFound(w, r)
	case path == "/api/v1/namespaces/kube-public/configmaps/cluster-info":
		if r.Header.Get("Authorization") != "" {
			s.t.Error("the token was sent to a server that was not trusted yet")
		}
		ca, _ := certutil.EncodeCertificates(s.ca)
		data, _ := clientcmd.Write(clientcmdapi.Config{Clusters: map[string]*clientcmdapi.Cluster{"": {Server: s.url, CertificateAuthorityData: ca}}})
		answer(w, &v1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, Data: map[string]string{"kubeconfig": string(data)}})
	case len(r.TLS.PeerCertificates) == 0 && r.Header.Get("Authorization") != "Bearer abcdef."+secret:
		refuse(w, http.StatusUnauthorized, metav1.StatusReasonUnauthorized)
	case path == "/api/v1/namespaces/kube-system/configmaps/"+FactsConfigMap:
		answer(w, &v1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, Data: map[string]string{
			"clusterCIDR": "10.1.0.0/16", "serviceCIDR": "10.2.0.0/16", "clusterDNS": "10.2.0.10", "clusterDomain": "example.internal",
		}})
	case path == "/api/v1/nodes/n2" && s.node != nil:
		answer(w, s.node)
	case path == "/apis/certificates.k8s.io/v1/certificatesigningrequests":
		s.serveRequests(w, r)
	default:
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
	}
}

// serveRequests issues every certificate at once.
func (s *server) serveRequests(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	s.mu.Lock()
	request := s.requests[name]
	s.mu.Unlock()
	switch {
	case r.Method == http.MethodPost:
		c := &certificatesv1.CertificateSigningRequest{}
		if err := json.NewDecoder(r.Body).Decode(c); err != nil {
			s.t.Error(err)
		}
		block, _ := pem.Decode(c.Spec.Request)
		asked, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			s.t.Error(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.issued++
		c.Name, c.UID, c.ResourceVersion = fmt.Sprintf("csr-%d", s.issued), types.UID(fmt.Sprint(s.issued)), "1"
		request := c.DeepCopy()
		request.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: v1.ConditionTrue}}
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(s.issued), Subject: asked.Subject, DNSNames: asked.DNSNames, IPAddresses: asked.IPAddresses,
			NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		}
		if s.old {
			leaf.NotBefore = time.Now().Add(-100 * time.Hour)
		}
		request.Status.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.sign(leaf, asked.PublicKey)})
		s.requests[c.Name] = request
		answer(w, c)
	case r.URL.Query().Get("watch") != "":
		w.Header().Set("Content-Type", "application/json")
		mark := &certificatesv1.CertificateSigningRequest{TypeMeta: request.TypeMeta}
		mark.ResourceVersion, mark.Annotations = "1", map[string]string{metav1.InitialEventsAnnotationKey: "true"}
		for kind, object := range map[string]any{"ADDED": request} {
			write(w, map[string]any{"type": kind, "object": object})
		}
		write(w, map[string]any{"type": "BOOKMARK", "object": mark})
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	default:
		answer(w, &certificatesv1.CertificateSigningRequestList{
			TypeMeta: metav1.TypeMeta{APIVersion: "certificates.k8s.io/v1", Kind: "CertificateSigningRequestList"},
			ListMeta: metav1.ListMeta{ResourceVersion: "1"},
			Items:    []certificatesv1.CertificateSigningRequest{*request},
		})
	}
}

func answer(w http.ResponseWriter, object any) {
	w.Header().Set("Content-Type", "application/json")
	write(w, object)
}

func write(w http.ResponseWriter, object any) {
	data, err := json.Marshal(object)
	if err != nil {
		panic(err) // all of them are Kubernetes' own types
	}
	_, _ = w.Write(append(data, '\n'))
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	write(w, &metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Reason: reason, Code: int32(code),
	})
}

func (s *server) config(t *testing.T) Config {
	t.Helper()
	return Config{
		Dir: filepath.Join(t.TempDir(), "data", "agent"), Server: s.url, Token: Token{ID: "abcdef", Secret: secret, Pin: Pin(s.ca)},
		NodeName: "n2", NodeIP: netip.MustParseAddr("192.0.2.2"), patience: time.Millisecond,
	}
}

func readyNode(address string, status v1.ConditionStatus) *v1.Node {
	n := &v1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: "n2"}}
	n.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: address}}
	n.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: status}}
	return n
}

func TestJoin(t *testing.T) {
	for name, node := range map[string]*v1.Node{
		"new":                      nil,
		"in place of a dead one":   readyNode("192.0.2.9", v1.ConditionUnknown),
		"anew at the same address": readyNode("192.0.2.2", v1.ConditionTrue),
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, "127.0.0.1")
			s.node = node
			cfg := s.config(t)
			joined, err := Join(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			want := Cluster{s.url, "n2", "10.1.0.0/16", "10.2.0.0/16", "10.2.0.10", "example.internal"}
			read, err := Read(cfg.Dir)
			if err != nil || *joined != want || *read != want {
				t.Errorf("joined %+v, read %+v (%v), want %+v", joined, read, err, want)
			}
			if pin, err := PinOf(cfg.Dir); err != nil || pin != Pin(s.ca) {
				t.Errorf("the authority kept is not the server's: %s, %v", pin, err)
			}
			checkIdentity(t, cfg.Dir)
			for path, want := range map[string]os.FileMode{filepath.Dir(cfg.Dir): 0o711, cfg.Dir: 0o700} {
				if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
					t.Errorf("the mode of %s is %v (%v), want %v", path, info.Mode(), err, want)
				}
			}
		})
	}
}

// checkIdentity: every part's kubeconfig is complete and carries the node's certificate.
func checkIdentity(t *testing.T, dir string) {
	t.Helper()
	for _, file := range kubeconfigs {
		rc, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.LoadX509KeyPair(rc.CertFile, rc.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		if who := pair.Leaf.Subject; who.CommonName != "system:node:n2" || len(who.Organization) != 1 || who.Organization[0] != "system:nodes" {
			t.Errorf("%s is of %s", file, who)
		}
		if info, err := os.Stat(rc.KeyFile); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the key's mode is %v (%v), want 0600", info.Mode(), err)
		}
	}
	if until, is := Expired(dir, time.Now()); is {
		t.Errorf("the certificate has expired on %s", until)
	}
	if _, is := Expired(dir, time.Now().Add(2*time.Hour)); !is {
		t.Error("the certificate does not expire")
	}
}

// TestCertificates: a machine that has joined gets a serving certificate for what its Node reports, and renews the
// certificate that it joined with when that grows old.
func TestCertificates(t *testing.T) {
	s := newServer(t, "127.0.0.1")
	s.old = true
	cfg := s.config(t)
	if _, err := Join(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s.old = false
	c := &Certificates{Dir: cfg.Dir, NodeName: cfg.NodeName, NodeIP: cfg.NodeIP}
	if _, err := c.GetCertificate(nil); err == nil {
		t.Error("there is a serving certificate before anybody asked for one")
	}
	ctx, cancel := context.WithCancel(t.Context())
	up, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- c.Run(ctx, func() { close(up) }) }()
	<-up
	cert, err := c.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	if l := cert.Leaf; !slices.Equal(l.DNSNames, []string{"n2"}) || len(l.IPAddresses) != 1 || l.IPAddresses[0].String() != "192.0.2.2" || l.Subject.CommonName != "system:node:n2" {
		t.Errorf("the serving certificate is for %s: %v, %v", l.Subject, l.DNSNames, l.IPAddresses)
	}
	pair := filepath.Join(cfg.Dir, clientPair+"-current.pem")
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if current, err := tls.LoadX509KeyPair(pair, pair); err == nil && current.Leaf.NotBefore.After(time.Now().Add(-time.Hour)) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the client certificate was not renewed")
		}
	}
	checkIdentity(t, cfg.Dir)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestJoinErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		name   string // that the server's certificate is for
		change func(*server, *Config)
		says   []string
	}{
		"WrongAuthority": {
			reason: "a server of another cluster, or an impostor, gets nothing",
			change: func(_ *server, c *Config) { c.Token.Pin = strings.Repeat("0", 64) },
			says:   []string{strings.Repeat("0", 64), "another cluster", "flyball token create"},
		},
		"WrongSecret": {
			reason: "the API server gives one answer to all of these",
			change: func(_ *server, c *Config) { c.Token.Secret = "fedcba9876543210" },
			says:   []string{"does not accept the token abcdef", "expired", "flyball token create"},
		},
		"Unreachable": {
			reason: "nobody listens there",
			change: func(_ *server, c *Config) { c.Server = "https://127.0.0.1:1" },
			says:   []string{"reaching the server at https://127.0.0.1:1", "refused", "--server"},
		},
		"OtherName": {
			reason: "its certificate is not for the address that was used",
			name:   "server.example", says: []string{"trusting the server", "127.0.0.1", "names or addresses"},
		},
		"NotFlyball": {
			reason: "some other HTTPS server",
			change: func(s *server, _ *Config) { s.foreign = true }, says: []string{"is it a Flyball server"},
		},
		"NameTaken": {
			reason: "two live machines cannot be one node",
			change: func(s *server, _ *Config) { s.node = readyNode("192.0.2.9", v1.ConditionTrue) },
			says:   []string{"192.0.2.9", "--node-name", "delete node n2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.name == "" {
				tc.name = "127.0.0.1"
			}
			s := newServer(t, tc.name)
			cfg := s.config(t)
			if tc.change != nil {
				tc.change(s, &cfg)
			}
			_, err := Join(t.Context(), cfg)
			if err == nil {
				t.Fatal("it joined")
			}
			for _, part := range tc.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s: error %q does not say %q", tc.reason, err, part)
				}
			}
			if strings.Contains(err.Error(), secret) {
				t.Error("the error repeats the secret")
			}
			if _, err := os.Stat(cfg.Dir); !os.IsNotExist(err) {
				t.Error("something was left behind")
			}
		})
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	if c, err := Read(dir); c != nil || err != nil {
		t.Errorf("an empty directory has joined %v, %v", c, err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Read(filepath.Join(file, "agent")); c != nil || err != nil {
		t.Errorf("below a file: %v, %v; the checks of the host say what is wrong with the data directory", c, err)
	}
	for _, broken := range []string{"x", "server: https://a:1\n", "serverr: x\n"} {
		if err := os.WriteFile(filepath.Join(dir, clusterFile), []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), clusterFile) || !strings.Contains(err.Error(), "down --purge") {
			t.Errorf("reading %q: %v, want an error that names the file and what to do", broken, err)
		}
	}
}
