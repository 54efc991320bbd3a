package controlplane

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flyball.dev/controlplane/pki"
)

func TestDataDirOfAnotherCluster(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		change func(t *testing.T, cfg *Config)
		want   string // in the error; "" for none
	}{
		"Same":           {reason: "a restart", change: func(*testing.T, *Config) {}},
		"OtherAddress":   {reason: "a machine may get another address", change: func(_ *testing.T, c *Config) { c.NodeIPs[0] = netip.MustParseAddr("192.0.2.9") }},
		"OtherNode":      {reason: "and another name", change: func(_ *testing.T, c *Config) { c.NodeName = "other" }},
		"ServiceCIDR":    {reason: "Services have addresses of it", change: func(_ *testing.T, c *Config) { c.ServiceCIDRs[0] = netip.MustParsePrefix("10.43.0.0/17") }, want: "Service CIDR 10.43.0.0/16"},
		"ClusterCIDR":    {reason: "nodes have parts of it", change: func(_ *testing.T, c *Config) { c.ClusterCIDRs[0] = netip.MustParsePrefix("10.44.0.0/16") }, want: "cluster CIDR 10.42.0.0/16"},
		"Domain":         {reason: "tokens are issued under it", change: func(_ *testing.T, c *Config) { c.ClusterDomain = "other" }, want: "cluster domain cluster.local"},
		"NewerVersion":   {reason: "stored objects may not be understood", change: edit("v1.37.2", "v1.38.0"), want: "newer"},
		"Damaged":        {reason: "somebody must look", change: edit("id:", "idd:"), want: "cluster.yaml"},
		"KeyLost":        {reason: "a new key could not read the Secrets", change: drop("encryption.yaml"), want: "encryption.yaml"},
		"CALost":         {reason: "a new CA would cut off all nodes", change: drop("pki/ca.pem"), want: "ca.pem"},
		"TokenKeyLost":   {reason: "all tokens would be invalid", change: drop("pki/service-account.key"), want: "service-account.key"},
		"OtherAgent":     {reason: "the agent's directory is of another cluster", change: otherAgent, want: "kubelet.pem"},
		"LeafLost":       {reason: "it is just made again", change: drop("pki/admin.pem")},
		"KubeconfigLost": {reason: "it is just written again", change: drop("kubeconfig/admin.kubeconfig")},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			cfg.Port = 6443
			if _, err := prepare(cfg); err != nil {
				t.Fatal(err)
			}
			tc.change(t, &cfg)
			_, err := prepare(cfg)
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("%s: %v", tc.reason, err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("%s: error %v, want one with %q", tc.reason, err, tc.want)
			}
		})
	}
}

func edit(from, to string) func(*testing.T, *Config) {
	return func(t *testing.T, c *Config) {
		t.Helper()
		path := c.server("cluster.yaml")
		data, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, []byte(strings.Replace(string(data), from, to, 1)), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func drop(name string) func(*testing.T, *Config) {
	return func(t *testing.T, c *Config) {
		t.Helper()
		if err := os.Remove(c.server(name)); err != nil {
			t.Fatal(err)
		}
	}
}

func otherAgent(t *testing.T, c *Config) {
	t.Helper()
	s := pki.Store{Dir: t.TempDir()}
	ca, err := s.CA("ca", "other")
	if err != nil {
		t.Fatal(err)
	}
	s.Dir = filepath.Join(c.DataDir, "agent")
	if err := os.Remove(filepath.Join(s.Dir, "kubelet.pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Issue(ca, pki.Leaf{Name: "kubelet", CommonName: "x"}); err != nil {
		t.Fatal(err)
	}
}

func TestLock(t *testing.T) {
	cfg := testConfig(t.TempDir())
	first, err := lockDataDir(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDataDir(cfg); err == nil || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("second lock: %v, want an error that names process %d", err, os.Getpid())
	}
	first.Close()
	again, err := lockDataDir(cfg)
	if err != nil {
		t.Fatalf("after the first was released: %v", err)
	}
	again.Close()
}

func TestValidate(t *testing.T) {
	cfg := testConfig("/tmp")
	cfg.Port = 6443
	if err := cfg.validate(); err != nil {
		t.Fatal(err)
	}
	cfg.NodeName, cfg.ClusterDNS[0], cfg.ServiceCIDRs[0] = "", netip.MustParseAddr("10.99.0.10"), cfg.ClusterCIDRs[0]
	cfg.RunDir = "/" + strings.Repeat("x", 100)
	err := cfg.validate()
	for _, want := range []string{"no name", "10.99.0.10", "overlap", "too long"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q: every fault is to be told at once", err, want)
		}
	}
}
