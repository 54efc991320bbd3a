package containerd

import (
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTakeProxy: the proxy of the shell is known, and no request of this process can go through it.
func TestTakeProxy(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "https_proxy", "NO_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	proxy := TakeProxy()
	for _, name := range []string{"HTTP_PROXY", "https_proxy", "NO_PROXY"} {
		if value, found := os.LookupEnv(name); found {
			t.Errorf("%s is still %q", name, value)
		}
		if !slices.Contains(proxy, name+"=http://127.0.0.1:1") {
			t.Errorf("%s is lost: %q", name, proxy)
		}
	}
}

func TestPullProxy(t *testing.T) {
	const own = "192.0.2.1,10.42.0.0/16,10.43.0.0/16,.svc,.cluster.local"
	for name, tc := range map[string]struct {
		reason      string
		proxy, want []string
	}{
		"None":      {"Without a proxy there is nothing to leave out.", nil, nil},
		"Alone":     {"A registry in the cluster is not behind the proxy.", []string{"HTTPS_PROXY=http://p"}, []string{"HTTPS_PROXY=http://p", "NO_PROXY=" + own}},
		"Both":      {"What the user leaves out is left out.", []string{"NO_PROXY=example.com", "http_proxy=http://p"}, []string{"http_proxy=http://p", "NO_PROXY=example.com," + own}},
		"LowerCase": {"Go reads it where NO_PROXY is empty.", []string{"no_proxy=example.com", "NO_PROXY=", "http_proxy=http://p"}, []string{"http_proxy=http://p", "NO_PROXY=example.com," + own}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, PullProxy(tc.proxy, "192.0.2.1", "10.42.0.0/16", "10.43.0.0/16", ".svc", ".cluster.local")); diff != "" {
				t.Errorf("%s\n-want +got\n%s", tc.reason, diff)
			}
		})
	}
}
