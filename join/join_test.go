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
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
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
	// starting, if set, says how a server that has not finished starting answers; nil once it has.
	starting func(*http.Request) *metav1.Status
	asked    atomic.Int64
	mu       sync.Mutex
	// requests by name; two are made at once.
	requests map[string]*certificatesv1.CertificateSigningRequest
	// issued counts certificates, and old makes them so that they are to be renewed at once.
	// Requests of the signer unsigned are left alone.
	issued   int64
	old      bool
	unsigned string
}

// newServer starts one whose certificate is for this name, with a change.
func newServer(t *testing.T, name string, changes ...func(*x509.Certificate)) *server {
	t.Helper()
	s := &server{t: t, requests: map[string]*certificatesv1.CertificateSigningRequest{}}
	s.key, s.ca = newCA(t)
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
	for _, change := range changes {
		change(leaf)
	}
	listening.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{{Certificate: [][]byte{s.sign(leaf, key.Public())}, PrivateKey: key}}}
	listening.StartTLS()
	t.Cleanup(func() { listening.CloseClientConnections(); listening.Close() })
	s.url = listening.URL
	return s
}

func newCA(t *testing.T) (*ecdsa.PrivateKey, *x509.Certificate) {
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
	s.asked.Add(1)
	if s.starting != nil {
		if status := s.starting(r); status != nil {
			refuse(w, int(status.Code), status.Reason)
			return
		}
	}
	switch {
	case s.foreign:
		http.NotFound(w, r)
	case path == "/readyz":
		if r.Header.Get("Authorization") != "" || len(r.TLS.PeerCertificates) > 0 {
			s.t.Error("a server that does not know a token refuses a /readyz that carries it")
		}
		_, _ = w.Write([]byte("ok"))
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
		if s.unsigned == c.Spec.SignerName {
			s.requests[c.Name] = c
			answer(w, c)
			return
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
		NodeName: "n2", NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.2")}, startTimeout: time.Millisecond,
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
			want := &Cluster{s.url, "n2", List{"192.0.2.2"}, List{"10.1.0.0/16"}, List{"10.2.0.0/16"}, List{"10.2.0.10"}, "example.internal"}
			read, err := Read(cfg.Dir)
			if err != nil || !reflect.DeepEqual(joined, want) || !reflect.DeepEqual(read, want) {
				t.Errorf("joined %+v, read %+v (%v), want %+v", joined, read, err, want)
			}
			if pin, err := PinOf(cfg.Dir); err != nil || pin != Pin(s.ca) {
				t.Errorf("the stored CA is not the server's: %s, %v", pin, err)
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

// checkIdentity: every kubeconfig is complete and carries the node's certificate.
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

// joinedLongAgo returns the configuration of a host whose client certificate must be renewed at
// once.
func joinedLongAgo(t *testing.T, s *server) Config {
	t.Helper()
	s.old = true
	cfg := s.config(t)
	if _, err := Join(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s.old = false
	// Upstream's store names files by the second: the next one would be the same, and seen before
	// it is in use.
	link := current(cfg.Dir, clientPair)
	file, err := os.Readlink(link)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(file, file+".old"), os.Remove(link), os.Symlink(file+".old", link)); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestCertificates: a joined node gets a serving certificate for the addresses that its Node
// reports, and renews its client certificate.
func TestCertificates(t *testing.T) {
	s := newServer(t, "127.0.0.1")
	cfg := joinedLongAgo(t, s)
	c := &Certificates{Dir: cfg.Dir, NodeName: cfg.NodeName, NodeIPs: cfg.NodeIPs}
	if _, err := c.GetCertificate(nil); err == nil {
		t.Error("there is a serving certificate before one was requested")
	}
	ctx, cancel := context.WithCancel(t.Context())
	up, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- c.Run(ctx, func() { close(up) }, func(err error) { t.Error(err) })
	}()
	<-up
	cert, err := c.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	if l := cert.Leaf; !slices.Equal(l.DNSNames, []string{"n2"}) || len(l.IPAddresses) != 1 || l.IPAddresses[0].String() != "192.0.2.2" || l.Subject.CommonName != "system:node:n2" {
		t.Errorf("the serving certificate is for %s: %v, %v", l.Subject, l.DNSNames, l.IPAddresses)
	}
	awaitRenewal(t, cfg.Dir)
	checkIdentity(t, cfg.Dir)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// awaitRenewal waits until the client certificate is a young one.
func awaitRenewal(t *testing.T, dir string) {
	t.Helper()
	pair := current(dir, clientPair)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if cert, err := tls.LoadX509KeyPair(pair, pair); err == nil && cert.Leaf.NotBefore.After(time.Now().Add(-time.Hour)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the client certificate was not renewed")
		}
	}
}

// TestBrokenServing: the node replaces a serving certificate that it cannot use, and keeps its
// client certificate.
func TestBrokenServing(t *testing.T) {
	write := func(data string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tc := range map[string]struct {
		reason string
		damage func(t *testing.T, path string)
		// whole is set if the certificate can still be used.
		whole bool
	}{
		"Garbage": {reason: "a disk that was full", damage: write("x")},
		"Empty":   {reason: "a host that lost its power", damage: write("")},
		"Directory": {reason: "nothing that a certificate can be written to", damage: func(t *testing.T, path string) {
			if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
				t.Fatal(err)
			}
		}},
		"Loop": {reason: "a link to itself", damage: func(t *testing.T, path string) {
			if err := os.Symlink(path, path); err != nil {
				t.Fatal(err)
			}
		}},
		"OtherKey": {reason: "half of it is of another time", damage: func(t *testing.T, path string) {
			one, other := newServer(t, "127.0.0.1"), newServer(t, "127.0.0.1")
			cert, _ := pairOf(t, one)
			_, key := pairOf(t, other)
			write(cert+key)(t, path)
		}},
		"OtherCA": {reason: "it was issued by another cluster that this host was in: the API server would refuse it", damage: func(t *testing.T, path string) {
			cert, key := pairOf(t, newServer(t, "127.0.0.1"))
			write(cert+key)(t, path)
		}},
		"Dangling": {reason: "its file was removed", whole: true, damage: func(t *testing.T, path string) {
			if err := os.Symlink(path+".gone", path); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, "127.0.0.1")
			cfg := joinedLongAgo(t, s)
			path := current(cfg.Dir, servingPair)
			tc.damage(t, path)
			c := &Certificates{Dir: cfg.Dir, NodeName: cfg.NodeName, NodeIPs: cfg.NodeIPs}
			up, ended := make(chan struct{}), make(chan error, 1)
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				ended <- c.Run(ctx, func() { close(up) }, func(err error) { t.Error(err) })
			}()
			select {
			case <-up:
			case err := <-ended:
				t.Fatalf("%s: it ended with %v", tc.reason, err)
			}
			if cert, err := c.GetCertificate(nil); err != nil || cert.Leaf.CheckSignatureFrom(s.ca) != nil {
				t.Errorf("%s: there is no good certificate (%v)", tc.reason, err)
			}
			if _, err := os.Lstat(path + aside); (err != nil) != tc.whole {
				t.Errorf("%s: put aside: %v", tc.reason, err)
			}
			awaitRenewal(t, cfg.Dir)
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// pairOf returns a certificate that this server issues, and its key.
func pairOf(t *testing.T, s *server) (cert, key string) {
	t.Helper()
	private, _, err := newRequest("n2")
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := keyutil.MarshalPrivateKeyToPEM(private)
	if err != nil {
		t.Fatal(err)
	}
	der := s.sign(&x509.Certificate{
		SerialNumber: big.NewInt(9), Subject: subject("n2"), DNSNames: []string{"n2"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 2)},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}, private.Public())
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(keyPEM)
}

// TestServingWaits: the client certificate is renewed while the serving certificate is not
// approved.
func TestServingWaits(t *testing.T) {
	s := newServer(t, "127.0.0.1")
	s.unsigned = certificatesv1.KubeletServingSignerName
	cfg := joinedLongAgo(t, s)
	c := &Certificates{Dir: cfg.Dir, NodeName: cfg.NodeName, NodeIPs: cfg.NodeIPs, reportAfter: time.Millisecond}
	reported, ended := make(chan error, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		ended <- c.Run(ctx, func() { t.Error("it is up without a certificate") }, func(err error) { reported <- err })
	}()
	if err := <-reported; !strings.Contains(err.Error(), "describe csr") {
		t.Errorf("the report is %v, want one that says where to look", err)
	}
	awaitRenewal(t, cfg.Dir)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestCopied: a certificate that a backup has turned from a link into a file is still renewed.
func TestCopied(t *testing.T) {
	s := newServer(t, "127.0.0.1")
	cfg := joinedLongAgo(t, s)
	path := current(cfg.Dir, clientPair)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(path), os.WriteFile(path, data, 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	up, ended := make(chan struct{}), make(chan error, 1)
	c := &Certificates{Dir: cfg.Dir, NodeName: cfg.NodeName, NodeIPs: cfg.NodeIPs}
	go func() { ended <- c.Run(ctx, func() { close(up) }, func(err error) { t.Error(err) }) }()
	<-up
	awaitRenewal(t, cfg.Dir)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestStarting: Join waits for a server that is starting, and trusts the answers of one that is
// ready.
func TestStarting(t *testing.T) {
	refusing := func(code int32, reason metav1.StatusReason, paths ...string) func(*http.Request) *metav1.Status {
		return func(r *http.Request) *metav1.Status {
			if slices.ContainsFunc(paths, func(p string) bool { return strings.HasPrefix(r.URL.Path, p) }) {
				return &metav1.Status{Code: code, Reason: reason}
			}
			return nil
		}
	}
	const (
		info  = "/api/v1/namespaces/kube-public"
		facts = "/api/v1/namespaces/kube-system"
		nodes = "/api/v1/nodes"
		csrs  = "/apis/certificates.k8s.io"
		ready = "/readyz"
	)
	for name, tc := range map[string]struct {
		reason   string
		starting func(*http.Request) *metav1.Status
		lasts    []string // in the error if it lasts
	}{
		"NoInfo":    {"the control plane has not said yet what it serves", refusing(404, metav1.StatusReasonNotFound, info), []string{"which cluster it serves", "flyball status", "--server"}},
		"NoRoles":   {"the role that lets anybody ask is not there yet", refusing(403, metav1.StatusReasonForbidden, info), []string{"which cluster it serves", "flyball status"}},
		"NoTokens":  {"the tokens have not been read yet", refusing(401, metav1.StatusReasonUnauthorized, facts, ready), []string{"does not know its tokens", "not finished starting", "flyball status"}},
		"NoFacts":   {"the role of those who join is not there yet", refusing(403, metav1.StatusReasonForbidden, facts), []string{"joining the cluster", "flyball status"}},
		"NoNames":   {"the role to read names is not there yet", refusing(403, metav1.StatusReasonForbidden, nodes), []string{"node name n2 is free", "flyball status"}},
		"NameToken": {"another API server behind the same address has not read the tokens yet", refusing(401, metav1.StatusReasonUnauthorized, nodes, ready), []string{"node name n2 is free", "does not know its tokens"}},
		"NoCSR":     {"the role to request a certificate is not there yet", refusing(403, metav1.StatusReasonForbidden, csrs), []string{"certificate for node n2", "flyball status"}},
		"CSRToken":  {"as with names", refusing(401, metav1.StatusReasonUnauthorized, csrs, ready), []string{"certificate for node n2", "does not know its tokens"}},
		"NotYet":    {"it does not take requests yet", refusing(503, metav1.StatusReasonServiceUnavailable, "/"), []string{"which cluster it serves", "flyball status"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, "127.0.0.1")
			refused := 0
			s.starting = func(r *http.Request) *metav1.Status {
				s.mu.Lock()
				defer s.mu.Unlock()
				status := tc.starting(r)
				if status == nil || refused == 5 {
					return nil
				}
				refused++
				return status
			}
			cfg := s.config(t)
			cfg.startTimeout, cfg.retryEvery = 30*time.Second, time.Millisecond
			if _, err := Join(t.Context(), cfg); err != nil {
				t.Errorf("%s: it was not waited for: %v", tc.reason, err)
			}

			s = newServer(t, "127.0.0.1")
			s.starting = tc.starting
			cfg = s.config(t)
			cfg.startTimeout, cfg.retryEvery = 20*time.Millisecond, time.Millisecond
			_, err := Join(t.Context(), cfg)
			fails(t, tc.reason, err, tc.lasts)
		})
	}
}

// TestDecided: an error that waiting does not change is returned at once.
func TestDecided(t *testing.T) {
	for name, change := range map[string]func(*server, *Config){
		"WrongSecret": func(_ *server, c *Config) { c.Token.Secret = "fedcba9876543210" },
		"NotFlyball":  func(s *server, _ *Config) { s.foreign = true },
		"NameTaken":   func(s *server, _ *Config) { s.node = readyNode("192.0.2.9", v1.ConditionTrue) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, "127.0.0.1")
			cfg := s.config(t)
			cfg.startTimeout, cfg.retryEvery = time.Hour, time.Millisecond
			change(s, &cfg)
			_, err := Join(t.Context(), cfg)
			if asked := s.asked.Load(); err == nil || asked > 5 {
				t.Errorf("after %d requests it failed with %v; want that it fails after a few", asked, err)
			}
		})
	}
}

func fails(t *testing.T, reason string, err error, says []string) {
	t.Helper()
	if err == nil {
		t.Fatalf("%s: it joined", reason)
	}
	for _, part := range says {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s: error %q does not say %q", reason, err, part)
		}
	}
	if strings.Contains(err.Error(), secret) {
		t.Error("the error repeats the secret")
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error %q has several lines", err)
	}
}

func TestJoinErrors(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, tc := range map[string]struct {
		reason string
		name   string                  // that the server's certificate is for
		leaf   func(*x509.Certificate) // changes it
		change func(*server, *Config)
		says   []string
	}{
		"WrongCA": {
			reason: "a server of another cluster, or an impostor, gets nothing",
			change: func(_ *server, c *Config) { c.Token.Pin = strings.Repeat("0", 64) },
			says:   []string{strings.Repeat("0", 64), "another cluster", "flyball token create", "--token", "--server"},
		},
		"WrongSecret": {
			reason: "the API server gives one answer to all of these",
			change: func(_ *server, c *Config) { c.Token.Secret = "fedcba9876543210" },
			says:   []string{"does not accept the token abcdef", "--token", "expired", "flyball token create"},
		},
		"Refused": {
			reason: "nobody listens there",
			change: func(_ *server, c *Config) { c.Server = "https://127.0.0.1:1" },
			says:   []string{"reaching the server at https://127.0.0.1:1", "refused", "127.0.0.1:1;", "--server", "6443"},
		},
		"NoSuchName": {
			reason: "a typing error",
			change: func(_ *server, c *Config) { c.Server = "https://server..example:6443" },
			says:   []string{"server..example", "--server takes a name that this host can resolve"},
		},
		"Plain": {
			reason: "the port of something else",
			change: func(_ *server, c *Config) { c.Server = strings.Replace(plain.URL, "http:", "https:", 1) },
			says:   []string{"does not speak TLS", plain.Listener.Addr().String(), "6443"},
		},
		"NoAnswer": {
			reason: "a firewall, or a host that hangs",
			change: func(_ *server, c *Config) {
				c.Server, c.requestTimeout = "https://"+silent.Addr().String(), 50*time.Millisecond
			},
			says: []string{"no answer within 50ms", silent.Addr().String(), "firewall", "--server"},
		},
		"OtherName": {
			reason: "its certificate is not for the address that was used",
			name:   "server.example", says: []string{"trusting the server", "127.0.0.1", "--server", "names and addresses"},
		},
		"ClockBehind": {
			reason: "a host whose clock has lost its battery",
			leaf: func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(24*time.Hour), time.Now().Add(48*time.Hour)
			},
			says: []string{"trusting the server", "not valid yet", "begins on", "clock of this host says", "set the clock"},
		},
		"ClockAhead": {
			reason: "a clock that is ahead by years, or a server that was never restarted in them",
			leaf: func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
			},
			says: []string{"trusting the server", "expired on", "clock of this host says", "set the clock"},
		},
		"Impostor": {
			reason: "it repeats the cluster info of the server, and does not have its key",
			change: func(s *server, c *Config) {
				_, s.ca = newCA(s.t)
				c.Token.Pin = Pin(s.ca)
			},
			says: []string{"trusting the server", "not signed by the CA", "--token"},
		},
		"NotFlyball": {
			reason: "some other HTTPS server",
			change: func(s *server, _ *Config) { s.foreign = true }, says: []string{"is --server the URL of a Flyball server"},
		},
		"NameTaken": {
			reason: "two live hosts cannot be one node",
			change: func(s *server, _ *Config) { s.node = readyNode("192.0.2.9", v1.ConditionTrue) },
			says:   []string{"192.0.2.9", "--node-name", "delete node n2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.name == "" {
				tc.name = "127.0.0.1"
			}
			var changes []func(*x509.Certificate)
			if tc.leaf != nil {
				changes = append(changes, tc.leaf)
			}
			s := newServer(t, tc.name, changes...)
			cfg := s.config(t)
			if tc.change != nil {
				tc.change(s, &cfg)
			}
			_, err := Join(t.Context(), cfg)
			fails(t, tc.reason, err, tc.says)
			if _, err := os.Stat(cfg.Dir); !os.IsNotExist(err) {
				t.Error("something was left behind")
			}
		})
	}
}

// TestForgottenPort: the error names the port that was tried.
func TestForgottenPort(t *testing.T) {
	err := unreachable("https://192.0.2.1", syscall.ECONNREFUSED, requestTimeout, time.Now())
	fails(t, "the port was forgotten", err, []string{"refused", "192.0.2.1:443 (--server names no port)", "6443"})
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
	const whole = "server: https://a:1\nnodeName: one\nclusterCIDR: 10.1.0.0/16\nserviceCIDR: 10.2.0.0/16\nclusterDNS: 10.2.0.10\nclusterDomain: c\n"
	if err := os.WriteFile(filepath.Join(dir, clusterFile), []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Read(dir); err != nil || c.NodeName != "one" {
		t.Errorf("a host that joined before its address was stored is %+v, %v", c, err)
	}
	const dual = "server: https://a:1\nnodeName: one\nnodeIP: 192.0.2.2,2001:db8::2\nclusterCIDR: 10.1.0.0/16,fd01::/48\n" +
		"serviceCIDR: 10.2.0.0/16,fd02::/112\nclusterDNS: 10.2.0.10,fd02::a\nclusterDomain: c\n"
	if err := os.WriteFile(filepath.Join(dir, clusterFile), []byte(dual), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Read(dir); err != nil || !slices.Equal(c.NodeIPs, List{"192.0.2.2", "2001:db8::2"}) || len(c.ClusterDNS) != 2 {
		t.Errorf("a host with two addresses is %+v, %v", c, err)
	}
	for _, broken := range []string{"x", "server: https://a:1\n", "serverr: x\n", whole + "nodeIP: x\n"} {
		if err := os.WriteFile(filepath.Join(dir, clusterFile), []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), clusterFile) || !strings.Contains(err.Error(), "down --purge") {
			t.Errorf("reading %q: %v, want an error that names the file and what to do", broken, err)
		}
	}
}
