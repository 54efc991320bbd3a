package main

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/util/keyutil"

	"flyball.dev/cmd/flyball/internal/config/v1alpha1"
	"flyball.dev/cmd/flyball/internal/instance"
	"flyball.dev/join"
)

const testServer = "https://192.0.2.1:6443"

// joinedDir is the data directory of a machine that has joined, with a certificate until then, and the pin of its cluster.
func joinedDir(t *testing.T, until time.Time) (dir, pin string) {
	t.Helper()
	dir = t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, data := range map[string]string{
		"client-ca.crt":              string(certPEM),
		"kubelet-client-current.pem": string(keyPEM) + string(certPEM),
		"cluster.yaml": "server: " + testServer + "\nnodeName: n2\nclusterCIDR: 10.1.0.0/16\nserviceCIDR: 10.2.0.0/16\n" +
			"clusterDNS: 10.2.0.10\nclusterDomain: example.internal\n",
	} {
		if err := os.MkdirAll(filepath.Join(dir, "agent"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "agent", name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, join.Pin(cert)
}

func TestLoadRole(t *testing.T) {
	if os.Geteuid() != 0 || len(instance.Running(instance.RunDir, instance.Up)) > 0 {
		t.Skip("joining needs root, and a machine on which Flyball does not run")
	}
	inAnHour := time.Now().Add(time.Hour)
	joined, pin := joinedDir(t, inAnHour)
	expired, _ := joinedDir(t, time.Now().Add(-time.Hour))
	own := t.TempDir()
	if err := os.MkdirAll(filepath.Join(own, "server"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(own, "server", "cluster.yaml"), []byte("id: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	token := "abcdef.0123456789abcdef."
	for name, tc := range map[string]struct {
		reason string
		role   instance.Role
		values v1alpha1.FlyballConfiguration
		fails  []string
	}{
		"Local":  {"without a server it is this machine's", instance.Agent, v1alpha1.FlyballConfiguration{DataDir: own}, nil},
		"Joined": {"a restart needs nothing", instance.Agent, v1alpha1.FlyballConfiguration{DataDir: joined}, nil},
		"JoinedAgain": {
			"the same command again, as a service manager gives it at each start", instance.Agent,
			v1alpha1.FlyballConfiguration{DataDir: joined, Server: testServer, Token: token + pin},
			nil,
		},
		"OtherCluster": {
			"a machine is a node of one cluster", instance.Agent,
			v1alpha1.FlyballConfiguration{DataDir: joined, Server: "https://192.0.2.9:6443", Token: token + strings.Repeat("0", 64)},
			[]string{"https://192.0.2.9:6443", "another cluster", testServer, "down --purge"},
		},
		"OtherName": {
			"a node does not change its name", instance.Agent,
			v1alpha1.FlyballConfiguration{DataDir: joined, NodeName: "n3"},
			[]string{"nodeName", "n2", "n3"},
		},
		"OtherAddress": {
			"nobody would reach the node at it", instance.Agent,
			v1alpha1.FlyballConfiguration{DataDir: joined, NodeIP: "192.0.2.99"},
			[]string{"192.0.2.99 is no address of this machine", "--node-ip"},
		},
		"JoinFromOtherAddress": {
			"it would be kept", instance.Agent,
			v1alpha1.FlyballConfiguration{DataDir: t.TempDir(), NodeIP: "192.0.2.99", Server: testServer, Token: token + pin},
			[]string{"192.0.2.99 is no address of this machine", "--node-ip"},
		},
		"Expired": {
			"it was off for a year", instance.Agent,
			v1alpha1.FlyballConfiguration{DataDir: expired},
			[]string{"n2", "expired on", "clock of this machine", "flyball token create"},
		},
		"OfAServer": {
			"a cluster of one's own is not given up by the way", instance.Agent,
			v1alpha1.FlyballConfiguration{DataDir: own, Server: testServer, Token: token + pin},
			[]string{own, "belongs to a server", "down --purge", "--data-dir"},
		},
		"NoToken": {
			"the server would not let it in", instance.Agent,
			v1alpha1.FlyballConfiguration{DataDir: t.TempDir(), Server: testServer},
			[]string{"a token is needed", "flyball token create"},
		},
		"NoServer": {
			"a token does not say where the server is", instance.Agent,
			v1alpha1.FlyballConfiguration{DataDir: t.TempDir(), Token: token + pin},
			[]string{"server", "https://192.0.2.1:6443"},
		},
		"Malformed": {
			"nothing is asked with half a token", instance.Agent,
			v1alpha1.FlyballConfiguration{DataDir: t.TempDir(), Server: testServer, Token: "abcdef.0123"},
			[]string{"malformed", "flyball token create"},
		},
		"UpOnAJoined": {
			"two clusters in one directory would mix", instance.Up,
			v1alpha1.FlyballConfiguration{DataDir: joined},
			[]string{"n2", testServer, "flyball agent", "down --purge"},
		},
		"UpWithServer": {
			"the file was meant for an agent", instance.Server,
			v1alpha1.FlyballConfiguration{DataDir: t.TempDir(), Server: testServer},
			[]string{testServer, "flyball agent"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.values.NodeIP = cmp.Or(tc.values.NodeIP, "127.0.0.1")
			set, err := (&configFlags{values: tc.values}).loadRole(t.Context(), tc.role)
			if len(tc.fails) == 0 {
				if err != nil {
					t.Fatalf("%s: %v", tc.reason, err)
				}
				if set.Config.Token != "" {
					t.Error("the token is kept")
				}
				if c := set.Config; set.Joined != nil && (c.NodeName != "n2" || c.ClusterPrefix.String() != "10.1.0.0/16" || c.DNSAddr.String() != "10.2.0.10" || c.ClusterDomain != "example.internal") {
					t.Errorf("%s: what the cluster is was not taken over: %+v", tc.reason, c)
				}
				return
			}
			if err == nil {
				t.Fatalf("%s: there is no error", tc.reason)
			}
			for _, part := range tc.fails {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s: error %q does not say %q", tc.reason, err, part)
				}
			}
			if strings.Contains(err.Error(), "0123456789abcdef") {
				t.Error("the error repeats the secret")
			}
		})
	}
}

func TestMove(t *testing.T) {
	if os.Geteuid() != 0 || len(instance.Running(instance.RunDir, instance.Up)) > 0 {
		t.Skip("joining needs root, and a machine on which Flyball does not run")
	}
	dir, _ := joinedDir(t, time.Now().Add(time.Hour))
	flags := &configFlags{values: v1alpha1.FlyballConfiguration{DataDir: dir, NodeIP: "127.0.0.1", Server: "https://192.0.2.7:6443"}}
	set, err := flags.loadRole(t.Context(), instance.Agent)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := os.ReadFile(filepath.Join(dir, "agent", "kubelet.kubeconfig"))
	if err != nil || set.Joined.Server != "https://192.0.2.7:6443" || !strings.Contains(string(kubeconfig), "https://192.0.2.7:6443") {
		t.Errorf("the server is %s, and the kubeconfig (%v) says\n%s", set.Joined.Server, err, kubeconfig)
	}
}

// TestNodeIP: the address of the first start counts at later ones, until --node-ip says another.
func TestNodeIP(t *testing.T) {
	if os.Geteuid() != 0 || len(instance.Running(instance.RunDir, instance.Up)) > 0 {
		t.Skip("joining needs root, and a machine on which Flyball does not run")
	}
	dir, _ := joinedDir(t, time.Now().Add(time.Hour))
	start := func(nodeIP string) (string, error) {
		set, err := (&configFlags{values: v1alpha1.FlyballConfiguration{DataDir: dir, NodeIP: nodeIP}}).loadRole(t.Context(), instance.Agent)
		if err != nil {
			return "", err
		}
		return set.Config.NodeIP, nil
	}
	for _, step := range []struct{ given, want, reason string }{
		{"127.0.0.1", "127.0.0.1", "what --node-ip says"},
		{"", "127.0.0.1", "what was chosen before, though the machine would choose another"},
	} {
		if got, err := start(step.given); err != nil || got != step.want {
			t.Errorf("with --node-ip %q the address is %q (%v), want %s", step.given, got, err, step.reason)
		}
	}
	if _, err := start("192.0.2.99"); err == nil {
		t.Error("an address of another machine was taken")
	}
	if got, err := start(""); err != nil || got != "127.0.0.1" {
		t.Errorf("after one that was refused it is %q (%v)", got, err)
	}
	// A machine that joined before the address was kept chooses it once more, for good.
	dir, _ = joinedDir(t, time.Now().Add(time.Hour))
	chosen, err := start("")
	if err != nil {
		t.Fatal(err)
	}
	if joined, err := join.Read(filepath.Join(dir, "agent")); err != nil || joined.NodeIPs.String() != chosen || chosen == "" {
		t.Errorf("it chose %q and keeps %+v (%v)", chosen, joined, err)
	}
}

func TestForChild(t *testing.T) {
	got := forChild([]string{"--detach", "--server", "s", "--token", "t", "-v", "2", "--token=t", "--detach=true", "--node-name=n"})
	if want := []string{"--server", "s", "-v", "2", "--node-name=n"}; !slices.Equal(got, want) {
		t.Errorf("the child gets %q, want %q", got, want)
	}
}
