package dns

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"
	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
)

// fakeAPI answers list and watch for what the DNS server reads.
func fakeAPI(t *testing.T) *rest.Config {
	t.Helper()
	service := func(name string, spec v1.ServiceSpec) *v1.Service {
		return &v1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", ResourceVersion: "1"}, Spec: spec}
	}
	slice := func(of string, hosts map[string]string) *discoveryv1.EndpointSlice {
		s := &discoveryv1.EndpointSlice{
			TypeMeta:    metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
			ObjectMeta:  metav1.ObjectMeta{Name: of + "-1", Namespace: "shop", ResourceVersion: "1", Labels: map[string]string{discoveryv1.LabelServiceName: of}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080)), Protocol: new(v1.ProtocolTCP)}},
		}
		for ip, host := range hosts {
			e := discoveryv1.Endpoint{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}}
			if host != "" {
				e.Hostname = &host
			}
			s.Endpoints = append(s.Endpoints, e)
		}
		return s
	}
	port := []v1.ServicePort{{Name: "http", Port: 80, Protocol: v1.ProtocolTCP}}
	objects := map[string][]runtime.Object{
		"/api/v1/namespaces": {&v1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: "shop", ResourceVersion: "1"}}},
		"/api/v1/services": {
			service("web", v1.ServiceSpec{Type: v1.ServiceTypeClusterIP, ClusterIP: "10.43.0.20", ClusterIPs: []string{"10.43.0.20"}, Ports: port}),
			service("db", v1.ServiceSpec{Type: v1.ServiceTypeClusterIP, ClusterIP: v1.ClusterIPNone, ClusterIPs: []string{v1.ClusterIPNone}, Ports: port}),
			service("far", v1.ServiceSpec{Type: v1.ServiceTypeExternalName, ExternalName: "far.example.org"}),
		},
		"/apis/discovery.k8s.io/v1/endpointslices": {
			slice("web", map[string]string{"10.42.0.2": ""}),
			slice("db", map[string]string{"10.42.0.3": "db-0", "10.42.0.4": "db-1"}),
		},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		list, known := objects[r.URL.Path]
		if !known {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("watch") == "" {
			_ = json.NewEncoder(w).Encode(map[string]any{"kind": "List", "apiVersion": "v1", "metadata": map[string]string{"resourceVersion": "1"}, "items": list})
			return
		}
		send := func(kind string, o any) { _ = json.NewEncoder(w).Encode(map[string]any{"type": kind, "object": o}) }
		if r.URL.Query().Get("sendInitialEvents") == "true" {
			for _, o := range list {
				send("ADDED", o)
			}
			gvk := list[0].GetObjectKind().GroupVersionKind()
			send("BOOKMARK", map[string]any{"kind": gvk.Kind, "apiVersion": gvk.GroupVersion().String(), "metadata": map[string]any{
				"resourceVersion": "1", "annotations": map[string]string{metav1.InitialEventsAnnotationKey: "true"},
			}})
		}
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return &rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
}

// fakeUpstream is the DNS server of the host. It knows one name.
func fakeUpstream(t *testing.T, listen string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", listen)
	if err != nil {
		t.Skipf("listening on %s: %v", listen, err)
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Skipf("listening on %s: %v", listen, err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		if q.Question[0].Name == "far.example.org." && q.Question[0].Qtype == dns.TypeA {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: "far.example.org.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}, A: net.IPv4(198, 51, 100, 7)})
		} else {
			m.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(m)
	})
	for _, server := range []*dns.Server{{PacketConn: conn, Handler: handler}, {Listener: l, Handler: handler}} {
		go func() { _ = server.ActivateAndServe() }()
		t.Cleanup(func() { _ = server.Shutdown() })
	}
}

// own is an address that no other program's connections have: none of them takes a port of it.
const own = "127.0.53.8"

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", own+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// start runs a server on a free port, and on another if somebody takes that before it does.
func start(t *testing.T, cfg Config) (address string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	cfg.Ready = func() { close(ready) }
	for tries, running := 1, false; !running; tries++ {
		cfg.Port = freePort(t)
		go func() { done <- Run(ctx, cfg) }()
		select {
		case <-ready:
			running = true
		case err := <-done:
			// CoreDNS does not wrap the error.
			if tries == 10 || err == nil || !strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) {
				t.Fatalf("running: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the DNS server did not become ready")
		}
	}
	address = net.JoinHostPort(cfg.Addresses[0].String(), fmt.Sprint(cfg.Port))
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("running: %v", err)
		}
		if l, err := net.Listen("tcp", address); err != nil {
			t.Errorf("the server holds its port after its end: %v", err)
		} else {
			_ = l.Close()
		}
	})
	return address
}

func TestAnswers(t *testing.T) {
	fakeUpstream(t, "127.0.53.7:53")
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("search example.org\nnameserver "+own+"\nnameserver 127.0.53.7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	address := start(t, Config{Client: fakeAPI(t), Addresses: []netip.Addr{netip.MustParseAddr(own)}, ClusterDomain: "cluster.local", Upstream: conf})
	for name, tc := range map[string]struct {
		reason string
		ask    string
		as     uint16
		code   int
		want   []string
	}{
		"Service":      {reason: "a Service has its cluster address", ask: "web.shop.svc.cluster.local.", as: dns.TypeA, want: []string{"web.shop.svc.cluster.local. A 10.43.0.20"}},
		"SRV":          {reason: "a named port is found by its name", ask: "_http._tcp.web.shop.svc.cluster.local.", as: dns.TypeSRV, want: []string{"_http._tcp.web.shop.svc.cluster.local. SRV 0 100 80 web.shop.svc.cluster.local."}},
		"Headless":     {reason: "a headless Service has its endpoints' addresses", ask: "db.shop.svc.cluster.local.", as: dns.TypeA, want: []string{"db.shop.svc.cluster.local. A 10.42.0.3", "db.shop.svc.cluster.local. A 10.42.0.4"}},
		"Member":       {reason: "a Pod with a hostname has a name of its own", ask: "db-1.db.shop.svc.cluster.local.", as: dns.TypeA, want: []string{"db-1.db.shop.svc.cluster.local. A 10.42.0.4"}},
		"Pod":          {reason: "every Pod address has a name", ask: "10-42-0-9.shop.pod.cluster.local.", as: dns.TypeA, want: []string{"10-42-0-9.shop.pod.cluster.local. A 10.42.0.9"}},
		"ExternalName": {reason: "an ExternalName is followed to the world outside", ask: "far.shop.svc.cluster.local.", as: dns.TypeA, want: []string{"far.example.org. A 198.51.100.7", "far.shop.svc.cluster.local. CNAME far.example.org."}},
		"PTR":          {reason: "an address of a Service has its name", ask: "20.0.43.10.in-addr.arpa.", as: dns.TypePTR, want: []string{"20.0.43.10.in-addr.arpa. PTR web.shop.svc.cluster.local."}},
		"Unknown":      {reason: "a Service that does not exist", ask: "none.shop.svc.cluster.local.", as: dns.TypeA, code: dns.RcodeNameError},
		"NoIPv6":       {reason: "the name exists, the address does not", ask: "web.shop.svc.cluster.local.", as: dns.TypeAAAA},
		"Forward":      {reason: "any other name is the host's", ask: "far.example.org.", as: dns.TypeA, want: []string{"far.example.org. A 198.51.100.7"}},
		"ForwardPTR":   {reason: "an address of nobody in the cluster is the host's", ask: "1.2.0.192.in-addr.arpa.", as: dns.TypePTR, code: dns.RcodeNameError},
	} {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(name+"/"+network, func(t *testing.T) {
				q := new(dns.Msg)
				q.SetQuestion(tc.ask, tc.as)
				m, _, err := (&dns.Client{Net: network, Timeout: 5 * time.Second}).Exchange(q, address)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, rr := range m.Answer {
					got = append(got, strings.Join(slices.Delete(strings.Fields(rr.String()), 1, 3), " "))
				}
				slices.Sort(got)
				if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" || m.Rcode != tc.code {
					t.Errorf("%s: code %s, -want +got\n%s", tc.reason, dns.RcodeToString[m.Rcode], diff)
				}
			})
		}
	}
}

func TestAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	port := l.Addr().(*net.TCPAddr).Port
	err = Run(context.Background(), Config{Client: &rest.Config{Host: "http://127.0.0.1:1"}, Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Port: port, ClusterDomain: "cluster.local"})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint(port)) {
		t.Errorf("got %v, want an error that names port %d", err, port)
	}
}

func TestUpstreams(t *testing.T) {
	own := netip.MustParseAddr("10.43.0.10")
	for name, tc := range map[string]struct {
		reason, conf string
		behind       string // what systemd knows
		want         []netip.Addr
	}{
		"None": {reason: "a host without a server", conf: "search example.org\n"},
		"Two":  {reason: "each server once", conf: "nameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver 192.0.2.1\n", want: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}},
		"Self": {reason: "never ourselves", conf: "nameserver 10.43.0.10\nnameserver 192.0.2.1\n", want: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		"Stub": {
			reason: "systemd's own server may ask us", conf: "nameserver 127.0.0.53\n", behind: "nameserver 127.0.0.1\nnameserver 192.0.2.9\n",
			want: []netip.Addr{netip.MustParseAddr("192.0.2.9")},
		},
		"Loopback": {
			reason: "so may any other on the loopback", conf: "nameserver ::1\nnameserver 192.0.2.1\n", behind: "nameserver 192.0.2.9\n",
			want: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.9")},
		},
		"Local": {reason: "a server on the host's loopback is reachable, as we are on the host too", conf: "nameserver 127.0.0.1\n", want: []netip.Addr{netip.MustParseAddr("127.0.0.1")}},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "resolv.conf")
			if err := os.WriteFile(file, []byte(tc.conf), 0o644); err != nil {
				t.Fatal(err)
			}
			behind := filepath.Join(t.TempDir(), "behind")
			if err := os.WriteFile(behind, []byte(tc.behind), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := upstreams(file, behind, []netip.Addr{own})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("%s: -want +got\n%s", tc.reason, diff)
			}
		})
	}
}
