package server

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiserver/pkg/authentication/user"
)

func TestAttributes(t *testing.T) {
	tests := map[string]struct {
		reason, method, path string
		want                 []string // verb nodes/subresource, any of which is enough
	}{
		"health":          {"A probe needs no more than that.", "GET", "/healthz", []string{"get healthz", "get proxy"}},
		"health, one":     {"Single checks are the same door.", "GET", "/healthz/syncloop", []string{"get healthz", "get proxy"}},
		"pods":            {"Read by agents that used to need nodes/proxy.", "GET", "/pods", []string{"get pods", "get proxy"}},
		"pods/":           {"With a slash it is the same.", "GET", "/pods/", []string{"get pods", "get proxy"}},
		"podsecrets":      {"A prefix of a word is not a path.", "GET", "/podsecrets", []string{"get proxy"}},
		"runningpods":     {"As pods.", "GET", "/runningpods/", []string{"get pods", "get proxy"}},
		"configz":         {"The configuration.", "GET", "/configz", []string{"get configz", "get proxy"}},
		"stats":           {"What metrics agents have; not all of nodes/proxy.", "GET", "/stats/summary", []string{"get stats"}},
		"metrics":         {"Prometheus.", "GET", "/metrics", []string{"get metrics"}},
		"metrics of pods": {"metrics-server.", "GET", "/metrics/resource", []string{"get metrics"}},
		"host's logs":     {"Named log, as pods/log is.", "GET", "/logs/messages", []string{"get log"}},
		"checkpoint":      {"Not served, but never to be reached with less.", "POST", "/checkpoint/ns/p/c", []string{"create checkpoint"}},
		"statusz":         {"Not served either.", "GET", "/statusz", []string{"get statusz"}},
		"container logs":  {"They are of others: the broad permission.", "GET", "/containerLogs/ns/p/c", []string{"get proxy"}},
		"exec":            {"The verb follows the method.", "POST", "/exec/ns/p/c", []string{"create proxy"}},
		"exec, websocket": {"WebSockets begin with GET.", "GET", "/exec/ns/p/c", []string{"get proxy"}},
		"run":             {"As exec.", "POST", "/run/ns/p/c", []string{"create proxy"}},
		"port-forward":    {"As exec.", "POST", "/portForward/ns/p", []string{"create proxy"}},
		"profiles":        {"They show memory.", "GET", "/debug/pprof/heap", []string{"get proxy"}},
		"root":            {"Anything unknown.", "DELETE", "/", []string{"delete proxy"}},
		"odd method":      {"No verb: nothing grants it but *.", "BREW", "/pods", []string{" pods", " proxy"}},
		"dots":            {"The path as sent decides; the mux then redirects to the clean one, which the client requests again.", "GET", "/metrics/../exec/ns/p/c", []string{"get metrics"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, a := range attributesOf("n1", &user.DefaultInfo{Name: "u"}, tc.method, tc.path) {
				if a.GetResource() != "nodes" || a.GetName() != "n1" || !a.IsResourceRequest() || a.GetAPIVersion() != "v1" || a.GetAPIGroup() != "" {
					t.Errorf("not a permission on this node: %+v", a)
				}
				got = append(got, a.GetVerb()+" "+a.GetSubresource())
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}
