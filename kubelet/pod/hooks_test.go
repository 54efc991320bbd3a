package pod

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/record"
)

// hookServer records its requests.
type hookServer struct {
	*httptest.Server
	port int32
	got  []string
	head []http.Header
}

func serveHooks(t *testing.T, start func(http.Handler) *httptest.Server) *hookServer {
	t.Helper()
	s := &hookServer{}
	s.Server = start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.got, s.head = append(s.got, r.Host+" "+r.URL.String()), append(s.head, r.Header)
		if to := r.URL.Query().Get("to"); to != "" {
			http.Redirect(w, r, to, http.StatusFound)
		}
	}))
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	s.port = int32(n)
	return s
}

// TestHTTPHook calls real servers on loopback.
func TestHTTPHook(t *testing.T) {
	type server = func(http.Handler) *httptest.Server
	cases := map[string]struct {
		reason string
		server server
		hook   v1.HTTPGetAction
		change func(h *v1.HTTPGetAction, s *hookServer)
		want   []string // HOST stands for the server's address
		event  string
		fails  string
	}{
		"HTTP":     {reason: "the Pod's address is the default, and so is HTTP", server: httptest.NewServer, hook: v1.HTTPGetAction{Path: "/a?b=c"}, want: []string{"HOST /a?b=c"}},
		"HTTPS":    {reason: "nobody could verify the certificate", server: httptest.NewTLSServer, hook: v1.HTTPGetAction{Scheme: v1.URISchemeHTTPS, Path: "/a"}, want: []string{"HOST /a"}},
		"Fallback": {reason: "HTTPS was not what the server speaks", server: httptest.NewServer, hook: v1.HTTPGetAction{Scheme: v1.URISchemeHTTPS, Path: "/a"}, want: []string{"HOST /a"}, event: "Warning LifecycleHTTPFallback request to HTTPS lifecycle hook HOST got HTTP response, retry with HTTP succeeded"},
		"Redirect": {reason: "on the same host", server: httptest.NewServer, hook: v1.HTTPGetAction{Path: "/a?to=/b"}, want: []string{"HOST /a?to=/b", "HOST /b"}},
		"Elsewhere": {reason: "a container must not make the node ask others", server: httptest.NewServer, change: func(h *v1.HTTPGetAction, s *hookServer) {
			h.Path = "/a?to=http://localhost:" + strconv.Itoa(int(s.port)) + "/b"
		}, want: []string{"HOST /a?to=http://localhost:PORT/b"}},
		"Host":    {reason: "an address of its own", server: httptest.NewServer, hook: v1.HTTPGetAction{Path: "/a", Host: "localhost"}, want: []string{"localhost:PORT /a"}},
		"Named":   {reason: "by the container's port", server: httptest.NewServer, hook: v1.HTTPGetAction{Path: "/a", Port: intstr.FromString("web")}, want: []string{"HOST /a"}},
		"No path": {reason: "the path is optional", server: httptest.NewServer, want: []string{"HOST /"}},
		"No port": {reason: "a name that no port has", server: httptest.NewServer, hook: v1.HTTPGetAction{Path: "/a", Port: intstr.FromString("none")}, fails: `HTTP lifecycle hook (/a) for Container "main" in Pod "web_default(u1)" failed - error: `},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := serveHooks(t, tc.server)
			hook := tc.hook
			if hook.Port == (intstr.IntOrString{}) {
				hook.Port = intstr.FromInt32(s.port)
			}
			if tc.change != nil {
				tc.change(&hook, s)
			}
			spec := &v1.Container{Name: "main", Ports: []v1.ContainerPort{{Name: "web", ContainerPort: s.port}}}
			events := record.NewFakeRecorder(1)
			j := job{
				m: &Manager{cfg: Config{Recorder: events}}, uid: "u1", pod: testPod(nil),
				podIPs: []string{"127.0.0.1"},
			}
			err := j.runHook(t.Context(), "c", spec, &v1.LifecycleHandler{HTTPGet: &hook})
			if (err != nil) != (tc.fails != "") || err != nil && !strings.HasPrefix(err.Error(), tc.fails) {
				t.Fatalf("%s: %v", tc.reason, err)
			}
			names := strings.NewReplacer("HOST", s.Listener.Addr().String(), "PORT", strconv.Itoa(int(s.port)))
			var want []string
			for _, w := range tc.want {
				want = append(want, names.Replace(w))
			}
			if diff := cmp.Diff(want, s.got); diff != "" {
				t.Errorf("%s: requests -want +got:\n%s", tc.reason, diff)
			}
			select {
			case e := <-events.Events:
				if e != names.Replace(tc.event) {
					t.Errorf("Event %q", e)
				}
			default:
				if tc.event != "" {
					t.Errorf("no Event %q", tc.event)
				}
			}
		})
	}
}

// TestHTTPHookHeaders compares what a server sees of the node.
func TestHTTPHookHeaders(t *testing.T) {
	s := serveHooks(t, httptest.NewServer)
	hook := &v1.HTTPGetAction{Path: "/", Scheme: v1.URISchemeHTTPS, Port: intstr.FromInt32(s.port), HTTPHeaders: []v1.HTTPHeader{
		{Name: "Host", Value: "example.com"},
		{Name: "X-A", Value: "1"},
		{Name: "X-A", Value: "2"},
		{Name: "Accept", Value: ""},
		{Name: "Authorization", Value: "Basic secret"},
	}}
	j := job{
		m: &Manager{cfg: Config{Recorder: &record.FakeRecorder{}}}, uid: "u1", pod: testPod(nil),
		podIPs: []string{"127.0.0.1"},
	}
	if err := j.runHook(t.Context(), "c", &v1.Container{}, &v1.LifecycleHandler{HTTPGet: hook}); err != nil {
		t.Fatal(err)
	}
	if len(s.got) != 1 || s.got[0] != "example.com /" {
		t.Fatalf("requests %q", s.got)
	}
	h := s.head[0]
	if !strings.HasPrefix(h.Get("User-Agent"), "kube-lifecycle/") {
		t.Errorf("User-Agent is %q", h.Get("User-Agent"))
	}
	h.Del("User-Agent")
	// The secret was for HTTPS.
	if diff := cmp.Diff(http.Header{"X-A": {"1", "2"}, "Accept-Encoding": {"gzip"}}, h); diff != "" {
		t.Errorf("headers -want +got:\n%s", diff)
	}
}
