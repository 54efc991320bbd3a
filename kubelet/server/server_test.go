package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

func TestWhoMayAsk(t *testing.T) {
	f := newFixture(t)
	f.allowed["scraper get metrics"] = true
	f.allowed["prober get healthz"] = true
	tests := map[string]struct {
		reason, user, path string
		code               int
		body               string
	}{
		"nobody":           {"No token, no certificate.", "", "/healthz", 401, "Unauthorized\n"},
		"forged":           {"The API server does not know the token.", "forged", "/healthz", 401, "Unauthorized\n"},
		"not allowed":      {"The text names what is missing, as upstream's does.", "scraper", "/pods", 403, "Forbidden (user=scraper, verb=get, resource=nodes, subresource(s)=[pods proxy])\n"},
		"fine-grained":     {"nodes/healthz is enough.", "prober", "/healthz", 200, "ok"},
		"broad":            {"nodes/proxy opens the same door.", "root", "/healthz", 200, "ok"},
		"broad is not all": {"nodes/proxy does not grant nodes/metrics.", "root", "/metrics", 403, "Forbidden (user=root, verb=get, resource=nodes, subresource(s)=[metrics])\n"},
		"way round":        {"The mux redirects a path with dots, and the client requests the clean one.", "scraper", "/metrics/../pods", 403, "Forbidden (user=scraper, verb=get, resource=nodes, subresource(s)=[pods proxy])\n"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			code, body := f.do(tc.user, "GET", tc.path)
			if code != tc.code || body != tc.body {
				t.Errorf("%s\ngot %d %q, want %d %q", tc.reason, code, body, tc.code, tc.body)
			}
		})
	}
}

func TestClientCertificate(t *testing.T) {
	f := newFixture(t)
	for name, tc := range map[string]struct {
		cert tls.Certificate
		want int
	}{
		"ours":     {f.ca.issue(t, "root"), 200},
		"another":  {f.ca.issue(t, "somebody"), 403},
		"of other": {newCA(t).issue(t, "root"), 401},
	} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{
			RootCAs: f.ca.pool, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tc.cert, nil },
		}}
		resp, err := (&http.Client{Transport: transport}).Get(f.url + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		transport.CloseIdleConnections()
		if resp.StatusCode != tc.want {
			t.Errorf("a certificate of %s: got %d, want %d", name, resp.StatusCode, tc.want)
		}
	}
}

func TestReads(t *testing.T) {
	f := newFixture(t)
	for _, sub := range []string{"log", "stats", "metrics"} {
		f.allowed["root get "+sub] = true
	}
	f.server.cfg.Healthy = nil
	tests := map[string]struct {
		method, path string
		code         int
		contains     string
	}{
		"pods":             {"GET", "/pods", 200, `"kind":"PodList"`},
		"pods, posted":     {"POST", "/pods", 405, "Method Not Allowed"},
		"running pods":     {"GET", "/runningpods/", 200, `"name":"web"`},
		"host's logs":      {"GET", "/logs/messages", 200, "booted"},
		"host's logs dir":  {"GET", "/logs/", 200, "messages"},
		"out of them":      {"GET", "/logs/link", 500, ""},
		"configuration":    {"GET", "/configz", 200, `{"kubeletconfig":null}`},
		"summary":          {"GET", "/stats/summary", 200, `"fs":{`},
		"metrics":          {"GET", "/metrics", 200, "go_goroutines"},
		"own metrics":      {"GET", "/metrics", 200, "of_this_agent 0"},
		"cadvisor":         {"GET", "/metrics/cadvisor", 200, "container_last_seen"},
		"run":              {"POST", "/run/default/web/main?cmd=ls+-l", 200, `ran ["ls" "-l"]`},
		"nothing":          {"GET", "/nothing", 404, ""},
		"profiles":         {"GET", "/debug/pprof/cmdline", 200, ""},
		"resource metrics": {"GET", "/metrics/resource", 200, `container_memory_working_set_bytes{container="main",namespace="default",pod="web"} 5 1700000000000`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			code, body := f.do("root", tc.method, tc.path)
			if code != tc.code || !strings.Contains(body, tc.contains) || strings.Contains(body, "secret") {
				t.Errorf("got %d %q, want %d with %q", code, body, tc.code, tc.contains)
			}
		})
	}
}

const threeLines = `2026-01-02T03:04:05.000000001Z stdout F one
2026-01-02T03:04:06.000000001Z stderr F two
2026-01-02T03:04:07.000000001Z stdout F three
`

func TestLogs(t *testing.T) {
	f := newFixture(t)
	if err := os.WriteFile(f.cri.logPath, []byte(threeLines), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		path string
		code int
		want string
	}{
		"all":            {"default/web/main", 200, "one\ntwo\nthree\n"},
		"tail":           {"default/web/main?tailLines=1", 200, "three\n"},
		"limit":          {"default/web/main?limitBytes=5", 200, "one\nt"},
		"timestamps":     {"default/web/main?timestamps=true&tailLines=1", 200, "2026-01-02T03:04:07.000000001Z three\n"},
		"since":          {"default/web/main?sinceTime=2026-01-02T03:04:06Z", 200, "two\nthree\n"},
		"since long ago": {"default/web/main?sinceSeconds=10", 200, ""},
		"one stream":     {"default/web/main?stream=Stderr", 200, "two\n"},
		"bad query":      {"default/web/main?tailLines=-1", 422, "{\"message\": \"Invalid request.\"}\n"},
		"no pod":         {"default/nope/main", 404, "pod \"nope\" does not exist\n"},
		"no container":   {"default/web/nope", 404, "container \"nope\" not found in pod \"web\"\n"},
		"no previous":    {"default/web/main?previous=true", 400, "previous terminated container \"main\" in pod \"web\" not found\n"},
		"no status":      {"default/web/terminal", 400, "container \"terminal\" in pod \"web\" is not available\n"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			code, body := f.do("root", "GET", "/containerLogs/"+tc.path)
			if d := cmp.Diff(tc.want, body); code != tc.code || d != "" {
				t.Errorf("got %d, want %d (-want +got):\n%s", code, tc.code, d)
			}
		})
	}
}

func TestLogsFollow(t *testing.T) {
	f := newFixture(t)
	if err := os.WriteFile(f.cri.logPath, []byte(threeLines), 0o600); err != nil {
		t.Fatal(err)
	}
	read := make(chan string)
	go func() {
		_, body := f.do("root", "GET", "/containerLogs/default/web/main?follow=true&tailLines=1")
		read <- body
	}()
	log, err := os.OpenFile(f.cri.logPath, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(log, "2026-01-02T03:04:08.000000001Z stdout F four\n"); err != nil {
		t.Fatal(err)
	}
	_ = log.Close()
	f.cri.setRunning(false)
	if got := <-read; !strings.HasSuffix(got, "four\n") {
		t.Errorf("got %q: the last lines of a container that ended are missing", got)
	}
}

func TestContainerToRead(t *testing.T) {
	ended := func(id string) *v1.ContainerStateTerminated { return &v1.ContainerStateTerminated{ContainerID: id} }
	waiting := func(reason string) v1.ContainerState {
		return v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reason}}
	}
	tests := map[string]struct {
		status   v1.ContainerStatus
		previous bool
		id, err  string
	}{
		"running":            {status: v1.ContainerStatus{ContainerID: "c://2", State: v1.ContainerState{Running: &v1.ContainerStateRunning{}}}, id: "c://2"},
		"ended":              {status: v1.ContainerStatus{State: v1.ContainerState{Terminated: ended("c://2")}}, id: "c://2"},
		"previous":           {status: v1.ContainerStatus{LastTerminationState: v1.ContainerState{Terminated: ended("c://1")}}, previous: true, id: "c://1"},
		"in back-off":        {status: v1.ContainerStatus{State: waiting("CrashLoopBackOff"), LastTerminationState: v1.ContainerState{Terminated: ended("c://1")}}, id: "c://1"},
		"never started":      {status: v1.ContainerStatus{State: v1.ContainerState{Terminated: ended("")}}, err: `container "main" in pod "web" is terminated`},
		"being created":      {status: v1.ContainerStatus{State: waiting("ContainerCreating")}, err: `container "main" in pod "web" is waiting to start: ContainerCreating`},
		"no image":           {status: v1.ContainerStatus{State: waiting("ErrImagePull")}, err: `container "main" in pod "web" is waiting to start: image can't be pulled`},
		"no image, back-off": {status: v1.ContainerStatus{State: waiting("ImagePullBackOff")}, err: `container "main" in pod "web" is waiting to start: trying and failing to pull image`},
		"nothing known":      {err: `container "main" in pod "web" is waiting to start - no logs yet`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			pod := webPod()
			tc.status.Name = "main"
			pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses = []v1.ContainerStatus{tc.status}, nil
			id, err := containerToRead(pod, "main", tc.previous)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if d := cmp.Diff([]string{tc.id, tc.err}, []string{id, text}); d != "" {
				t.Errorf("id, error (-want +got):\n%s", d)
			}
		})
	}
}

// TestStreams speaks both protocols of kubectl with the streaming server that
// containerd uses.
func TestStreams(t *testing.T) {
	f := newFixture(t)
	parse := func(path string) *url.URL {
		u, err := url.Parse(f.url + path)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for name, newExecutor := range map[string]func(path string) (remotecommand.Executor, error){
		"SPDY": func(p string) (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(f.config("root"), "POST", parse(p))
		},
		"WebSocket": func(p string) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(f.config("root"), "GET", f.url+p)
		},
	} {
		for kind, want := range map[string]string{"exec": `abc ["cat" "-n"] tty=false hello`, "attach": "abc tty=false hello"} {
			t.Run(name+" "+kind, func(t *testing.T) {
				e, err := newExecutor("/" + kind + "/default/web/main?command=cat&command=-n&input=1&output=1&error=1")
				if err != nil {
					t.Fatal(err)
				}
				var out, errOut bytes.Buffer
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				err = e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: &errOut})
				if err != nil || out.String() != want || errOut.String() != "a warning" {
					t.Errorf("got %q, %q, %v; want %q", out.String(), errOut.String(), err, want)
				}
			})
		}
		t.Run(name+" unknown", func(t *testing.T) {
			e, err := newExecutor("/exec/default/nope/main?command=cat&output=1")
			if err != nil {
				t.Fatal(err)
			}
			if err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard}); err == nil {
				t.Error("a pod that does not exist was entered")
			}
		})
	}
}

func TestPortForward(t *testing.T) {
	f := newFixture(t)
	target, err := url.Parse(f.url + "/portForward/default/web")
	if err != nil {
		t.Fatal(err)
	}
	transport, upgrader, err := spdy.RoundTripperFor(f.config("root"))
	if err != nil {
		t.Fatal(err)
	}
	tunnel, err := portforward.NewSPDYOverWebsocketDialerForStreaming(target, f.config("root"))
	if err != nil {
		t.Fatal(err)
	}
	for name, dialer := range map[string]httpstream.Dialer{
		"SPDY":   spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, "POST", target),
		"tunnel": tunnel,
	} {
		t.Run(name, func(t *testing.T) {
			conn, _, err := dialer.Dial("portforward.k8s.io")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			headers := http.Header{}
			headers.Set(v1.StreamType, v1.StreamTypeError)
			headers.Set(v1.PortHeader, "80")
			headers.Set(v1.PortForwardRequestIDHeader, "1")
			errStream, err := conn.CreateStream(headers)
			if err != nil {
				t.Fatal(err)
			}
			_ = errStream.Close()
			headers.Set(v1.StreamType, v1.StreamTypeData)
			data, err := conn.CreateStream(headers)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(data, "hello"); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len("box:80 hello"))
			if _, err := io.ReadFull(data, got); err != nil || string(got) != "box:80 hello" {
				t.Errorf("got %q, %v", got, err)
			}
			_ = data.Reset()
			_ = errStream.Reset()
		})
	}
}

func TestUnhealthy(t *testing.T) {
	f := newFixture(t)
	f.server.cfg.Healthy = func() error { return io.ErrUnexpectedEOF }
	if code, body := f.do("root", "GET", "/healthz"); code != 500 || !strings.Contains(body, "syncloop") {
		t.Errorf("got %d %q", code, body)
	}
}
