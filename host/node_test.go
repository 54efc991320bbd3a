package host

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"flyball.dev/apis/config/v1alpha1"
)

// TestSilentResolver: a name server that does not answer is an error soon, and no address is
// guessed instead.
func TestSilentResolver(t *testing.T) {
	silent, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	names := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, silent.LocalAddr().String())
	}}
	began := time.Now()
	_, err = defaults(names, 50*time.Millisecond, "https://server.example:6443")
	if err == nil {
		t.Fatal("the name server does not answer, and there is no error")
	}
	for _, part := range []string{"https://server.example:6443", "50ms", "--server", "--node-ip"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it took %s: a resolver's own timeout is longer", took)
	}
	if d, err := defaults(names, time.Minute, "https://127.0.0.1:6443"); err != nil || d.NodeIP.IsLoopback() {
		t.Errorf("with an address as server: %+v, %v; nobody needs to be asked, and others do not reach this machine at its loopback", d, err)
	}
}

// TestComplete: a server is resolved only where its address matters, and what is wrong with the
// rest of the configuration comes first.
func TestComplete(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		change v1alpha1.FlyballConfiguration
		says   []string
	}{
		"Unresolved":    {"The name cannot be resolved.", v1alpha1.FlyballConfiguration{}, []string{"server..example", "--node-ip"}},
		"KnownAddress":  {"The address is known.", v1alpha1.FlyballConfiguration{NodeIP: "192.0.2.2"}, nil},
		"WrongField":    {"Validation comes first.", v1alpha1.FlyballConfiguration{Port: -1}, []string{"port"}},
		"EverythingBad": {"Validation reports everything at once.", v1alpha1.FlyballConfiguration{NodeIP: "::1", Port: 70000, ClusterCIDR: "10.42.0.1/16"}, []string{"nodeIP", "port", "clusterCIDR", "10.42.0.0/16"}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.change.NodeName, tc.change.Server = "one", "https://server..example:6443"
			_, err := Complete(tc.change)
			if (err != nil) != (len(tc.says) > 0) {
				t.Fatalf("%s: Complete() = %v, want %q", tc.reason, err, tc.says)
			}
			for _, part := range tc.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s: error %q does not say %q", tc.reason, err, part)
				}
			}
		})
	}
}

// TestNodeName is what a host's name becomes.
func TestNodeName(t *testing.T) {
	for host, want := range map[string]string{"Alpha": "alpha", "alpha.example.": "alpha.example", "localhost": "localhost", "": "", "a_b": "a_b"} {
		if got := nodeName(host); got != want {
			t.Errorf("nodeName(%q) = %q, want %q", host, got, want)
		}
	}
	if got := nodeName(" a\n"); got != "a" {
		t.Errorf("nodeName of a name with space around it is %q, want a", got)
	}
}
