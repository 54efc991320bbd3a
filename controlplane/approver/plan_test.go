package approver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var protected = Protected{
	Names:     []string{"kubernetes.default.svc", "server"},
	Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
	Ranges:    []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16"), netip.MustParsePrefix("10.43.0.0/16")},
}

func node(name string, addresses ...string) *v1.Node {
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeHostName, Address: name}}
	for _, a := range addresses {
		n.Status.Addresses = append(n.Status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: a})
	}
	return n
}

// request is what the node agent of n2 sends, with a change.
func request(t *testing.T, change func(*x509.CertificateRequest, *certificatesv1.CertificateSigningRequestSpec)) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	template := &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "system:node:n2", Organization: []string{"system:nodes"}},
		DNSNames: []string{"n2"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 2)},
	}
	r := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "csr-1"}}
	r.Spec = certificatesv1.CertificateSigningRequestSpec{
		SignerName: certificatesv1.KubeletServingSignerName,
		Username:   "system:node:n2", Groups: []string{"system:nodes", "system:authenticated"},
		Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth},
	}
	if change != nil {
		change(template, &r.Spec)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	if r.Spec.Request == nil {
		r.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	}
	return r
}

func TestPlan(t *testing.T) {
	type spec = certificatesv1.CertificateSigningRequestSpec
	type template = x509.CertificateRequest
	server, n2 := node("server", "192.0.2.1"), node("n2", "192.0.2.2")
	for name, tc := range map[string]struct {
		reason string
		change func(*template, *spec)
		status certificatesv1.CertificateSigningRequestStatus
		nodes  []*v1.Node
		want   Verdict
		says   string
	}{
		"Exact":       {reason: "the node asks for its own name and address", want: Approve, says: "192.0.2.2"},
		"AddressOnly": {reason: "a part of what the Node reports is its own too", change: func(c *template, _ *spec) { c.DNSNames = nil }, want: Approve},
		"OtherSigner": {reason: "upstream approves client certificates", change: func(_ *template, s *spec) { s.SignerName = certificatesv1.KubeAPIServerClientKubeletSignerName }, want: Ignore},
		"Approved": {
			reason: "somebody has decided",
			status: certificatesv1.CertificateSigningRequestStatus{Conditions: []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved}}},
			want:   Ignore,
		},
		"Denied": {
			reason: "an administrator's word counts",
			status: certificatesv1.CertificateSigningRequestStatus{Conditions: []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateDenied}}},
			want:   Ignore,
		},
		"NoNode":       {reason: "the kubelet asks before its Node is there", nodes: []*v1.Node{server}, want: Wait, says: "no Node n2"},
		"NoAddressYet": {reason: "the address may be reported next", nodes: []*v1.Node{server, node("n2")}, want: Wait, says: "reports n2"},
		"ForAnother":   {reason: "a node may not speak for another", change: func(c *template, _ *spec) { c.Subject.CommonName = "system:node:n3" }, want: Leave, says: "system:node:n3"},
		"NotANode":     {reason: "a user that may make requests is no node", change: func(_ *template, s *spec) { s.Username = "alice" }, want: Leave, says: "alice"},
		"NotInGroup":   {reason: "the name alone makes no node", change: func(_ *template, s *spec) { s.Groups = []string{"system:authenticated"} }, want: Leave},
		"Bootstrapper": {reason: "a token is not a node yet", change: func(_ *template, s *spec) { s.Username = "system:bootstrap:abcdef" }, want: Leave},
		"OtherAddress": {reason: "an address that the Node does not report", change: func(c *template, _ *spec) { c.IPAddresses = append(c.IPAddresses, net.IPv4(192, 0, 2, 9)) }, want: Wait, says: "192.0.2.9"},
		"OtherName":    {reason: "a name that is not the Node's", change: func(c *template, _ *spec) { c.DNSNames = append(c.DNSNames, "example.com") }, want: Leave, says: "example.com"},
		"OtherCase":    {reason: "names of hosts are compared without regard to case", change: func(c *template, _ *spec) { c.DNSNames = []string{"N1"} }, want: Leave, says: "N1"},
		"ServiceName":  {reason: "a certificate for a Service", change: func(c *template, _ *spec) { c.DNSNames = []string{"web.default.svc.cluster.local"} }, want: Leave, says: "Service"},
		"Shared":       {reason: "two Nodes that report one address: one of them lies", nodes: []*v1.Node{n2, node("n4", "192.0.2.2")}, want: Wait, says: "n4"},
		"SharedByMany": {
			reason: "the reason is the same whatever order a cache lists Nodes in", nodes: []*v1.Node{node("n4", "192.0.2.2"), n2, node("n3", "192.0.2.2")},
			want: Wait, says: "Node n3, n4 reports",
		},
		"NeverBeforeNotYet": {
			reason: "what never becomes right is not waited for", nodes: []*v1.Node{server, node("n2")},
			change: func(c *template, _ *spec) { c.IPAddresses = append(c.IPAddresses, net.IPv4(10, 43, 0, 1)) }, want: Leave, says: "10.43.0.1",
		},
		"APIServer": {
			reason: "a Node that reports the API server's address could pass for it",
			change: func(c *template, _ *spec) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} },
			nodes:  []*v1.Node{node("n2", "192.0.2.1")}, want: Leave, says: "API server",
		},
		"APIServerName": {
			reason: "a machine that is called as the API server could pass for it",
			change: func(c *template, _ *spec) { c.DNSNames = []string{"Kubernetes.default.svc"} },
			nodes:  []*v1.Node{node("n2", "Kubernetes.default.svc")}, want: Leave, says: "API server",
		},
		"Service": {
			reason: "a Node that reports a Service's address could pass for that",
			change: func(c *template, _ *spec) { c.IPAddresses = []net.IP{net.IPv4(10, 43, 0, 1)} },
			nodes:  []*v1.Node{node("n2", "10.43.0.1")}, want: Leave, says: "Service",
		},
		"Loopback": {
			reason: "every machine has it",
			change: func(c *template, _ *spec) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} },
			nodes:  []*v1.Node{node("n2", "127.0.0.1")}, want: Leave, says: "127.0.0.1",
		},
		"Wildcard": {
			reason: "more than one name",
			change: func(c *template, _ *spec) { c.DNSNames = []string{"*.example.com"} },
			nodes:  []*v1.Node{node("n2", "*.example.com")}, want: Leave, says: "wildcard",
		},
		"NoNames":   {reason: "a certificate for nothing", change: func(c *template, _ *spec) { c.DNSNames, c.IPAddresses = nil, nil }, want: Leave},
		"URI":       {reason: "no kubelet asks for one", change: func(c *template, _ *spec) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "x"}} }, want: Leave},
		"ClientUse": {reason: "it is for serving", change: func(_ *template, s *spec) { s.Usages = append(s.Usages, certificatesv1.UsageClientAuth) }, want: Leave},
		"Masters":   {reason: "another group in the certificate", change: func(c *template, _ *spec) { c.Subject.Organization = []string{"system:nodes", "system:masters"} }, want: Leave},
		"Garbage":   {reason: "not a request at all", change: func(_ *template, s *spec) { s.Request = []byte("x") }, want: Leave, says: "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			s := State{Request: request(t, tc.change), Nodes: tc.nodes, Protected: protected}
			s.Request.Status = tc.status
			if s.Nodes == nil {
				s.Nodes = []*v1.Node{server, n2}
			}
			got := plan(s)
			if got.Do != tc.want || !strings.Contains(got.Reason, tc.says) {
				t.Errorf("%s: got %+v, want %s with a reason that says %q", tc.reason, got, tc.want, tc.says)
			}
			if got.Do != Ignore && got.Reason == "" {
				t.Error("there is no reason")
			}
			slices.Reverse(s.Nodes)
			if again := plan(s); again != got {
				t.Errorf("with the Nodes in another order it is %+v, not %+v", again, got)
			}
		})
	}
}

// TestReport: a request that waits is reported only after a while.
func TestReport(t *testing.T) {
	made := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	shared := []*v1.Node{node("n2", "192.0.2.2"), node("n4", "192.0.2.2")}
	notANode := func(_ *x509.CertificateRequest, s *certificatesv1.CertificateSigningRequestSpec) {
		s.Username = "alice"
	}
	for name, tc := range map[string]struct {
		reason string
		nodes  []*v1.Node
		change func(*x509.CertificateRequest, *certificatesv1.CertificateSigningRequestSpec)
		age    time.Duration
		want   Action
	}{
		"Young":    {"the Node comes in a moment", nil, nil, time.Second, Action{Do: Wait, RequeueAfter: reportAfter - time.Second}},
		"NoNode":   {"the Node does not come", nil, nil, reportAfter, Action{Do: Wait, Report: true}},
		"Shared":   {"another node has the address", shared, nil, time.Hour, Action{Do: Wait, Report: true}},
		"Never":    {"waiting does not help", nil, notANode, 0, Action{Do: Leave, Report: true}},
		"Approved": {"there is nothing to report", shared[:1], nil, time.Hour, Action{Do: Approve}},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, tc.change)
			r.CreationTimestamp = metav1.NewTime(made)
			got := plan(State{Request: r, Nodes: tc.nodes, Protected: protected, Now: made.Add(tc.age)})
			tc.want.Reason = got.Reason
			if got != tc.want {
				t.Errorf("%s: got %+v, want %+v", tc.reason, got, tc.want)
			}
		})
	}
}

func TestBrokenSignature(t *testing.T) {
	r := request(t, nil)
	block, _ := pem.Decode(r.Spec.Request)
	block.Bytes[len(block.Bytes)-1] ^= 1
	r.Spec.Request = pem.EncodeToMemory(block)
	if got := plan(State{Request: r, Nodes: []*v1.Node{node("n2", "192.0.2.2")}}); got.Do != Leave {
		t.Errorf("got %+v: only the holder of the key may get a certificate", got)
	}
}
