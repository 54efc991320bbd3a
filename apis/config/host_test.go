package config

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"flyball.dev/apis/config/v1alpha1"
)

// TestSilentResolver: a name server that does not answer is told of, soon, and no address is guessed instead.
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
	_, err = hostDefaults(names, 50*time.Millisecond, "https://server.example:6443")
	checkError(t, "The name server does not answer.", err, []string{"https://server.example:6443", "50ms", "--server", "--node-ip"})
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it took %s: a resolver's own patience is longer", took)
	}
	if d, err := hostDefaults(names, time.Minute, "https://127.0.0.1:6443"); err != nil || d.NodeIP.IsLoopback() {
		t.Errorf("with an address as server: %+v, %v; nobody needs to be asked, and others do not reach this machine at its loopback", d, err)
	}
}

// TestServerIsLookedUp only where it matters, and what is wrong with the rest of the configuration comes first.
func TestServerIsLookedUp(t *testing.T) {
	load := func(change func(*v1alpha1.FlyballConfiguration)) error {
		_, err := Load("", func(c *v1alpha1.FlyballConfiguration) error {
			c.NodeName, c.Server = "one", "https://server..example:6443"
			change(c)
			return nil
		})
		return err
	}
	checkError(t, "A name that cannot be looked up.", load(func(*v1alpha1.FlyballConfiguration) {}), []string{"server..example", "--node-ip"})
	checkError(t, "The address is known.", load(func(c *v1alpha1.FlyballConfiguration) { c.NodeIP = "192.0.2.2" }), nil)
	checkError(t, "A wrong field.", load(func(c *v1alpha1.FlyballConfiguration) { c.Port = -1 }), []string{"port"})
}

// TestTrailingSlash: the same server is not another one for what a browser adds.
func TestTrailingSlash(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(header+"nodeName: one\nnodeIP: 192.0.2.7\nserver: https://192.0.2.1:6443/\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file, func(*v1alpha1.FlyballConfiguration) error { return nil })
	if err != nil || c.Server != "https://192.0.2.1:6443" {
		t.Errorf("the server is %q (%v)", c.Server, err)
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
