//go:build linux

package wiring

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flyball.dev/apis/config"
	"flyball.dev/apis/config/v1alpha1"
	"flyball.dev/host/instance"
	"flyball.dev/join"
)

// TestComponents: `flyball status` shows the components of each role in the order in which they
// start.
func TestComponents(t *testing.T) {
	server := []string{
		"etcd", "kube-apiserver", "kube-scheduler", "kube-controller-manager", "bootstrap", "csr-approver", "certificates", "disk",
		"controllers", "snapshots",
	}
	node := []string{"routes", "root directory", "containerd", "images", "network", "kubelet", "storage", "proxy", "dns"}
	for name, tc := range map[string]struct {
		reason string
		role   instance.Role
		joined *join.Cluster
		cri    string
		want   []string
	}{
		"Server":       {"It has no node.", instance.Server, nil, "", server},
		"Up":           {"It has both.", instance.Up, nil, "", slices.Concat(server, node)},
		"Agent":        {"It waits for the server of this host.", instance.Agent, nil, "", append([]string{"api access"}, node...)},
		"Joined":       {"It renews its certificates itself.", instance.Agent, &join.Cluster{}, "", append([]string{"api access", "certificates"}, node...)},
		"OtherRuntime": {"Nothing is started or preloaded.", instance.Agent, nil, "unix:///run/crio.sock", []string{"api access", "routes", "root directory", "network", "kubelet", "storage", "proxy", "dns"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := Config{Role: tc.role, Joined: tc.joined, Config: &config.Config{
				FlyballConfiguration: v1alpha1.FlyballConfiguration{CRIEndpoint: tc.cri},
				NodeAddrs:            []netip.Addr{netip.MustParseAddr("192.0.2.1")},
			}}
			components, _, _ := c.Components().Status.Snapshot()
			var got []string
			for _, component := range components {
				got = append(got, component.Name)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s\n-want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}
