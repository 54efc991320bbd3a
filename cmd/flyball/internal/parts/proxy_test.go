package parts

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"flyball.dev/apis/config"
	"flyball.dev/apis/config/v1alpha1"
)

func TestPullProxy(t *testing.T) {
	const own = "192.0.2.1,10.42.0.0/16,10.43.0.0/16,.svc,.cluster.local"
	set := Set{Config: &config.Config{FlyballConfiguration: v1alpha1.FlyballConfiguration{
		NodeIP: "192.0.2.1", ClusterCIDR: "10.42.0.0/16", ServiceCIDR: "10.43.0.0/16", ClusterDomain: "cluster.local",
	}}}
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
			set.Proxy = tc.proxy
			if diff := cmp.Diff(tc.want, set.pullProxy()); diff != "" {
				t.Errorf("%s\n-want +got\n%s", tc.reason, diff)
			}
		})
	}
}
