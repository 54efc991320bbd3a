package pki

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
)

var t0 = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func testLeaf() Leaf {
	return Leaf{
		Name: "server", CommonName: "kube-apiserver", Organization: []string{"a", "b"},
		DNSNames: []string{"localhost", "kubernetes"}, Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")},
	}
}

func TestRenewal(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		change func(*Leaf)
		after  time.Duration
		want   bool // a new certificate
	}{
		"Unchanged":      {reason: "starting again changes nothing", want: false},
		"Order":          {reason: "the order of names means nothing", change: func(l *Leaf) { l.DNSNames = []string{"kubernetes", "localhost"} }},
		"BeforeTwoThird": {reason: "half a year is less than two thirds of one", after: 182 * 24 * time.Hour},
		"PastTwoThirds":  {reason: "it must not expire before the next start", after: 245 * 24 * time.Hour, want: true},
		"Expired":        {reason: "a machine was off for two years", after: 2 * 365 * 24 * time.Hour, want: true},
		"ClockSetBack":   {reason: "a certificate of the future is refused by everybody", after: -24 * time.Hour, want: true},
		"NewAddress":     {reason: "the node has another address", change: func(l *Leaf) { l.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.1")} }, want: true},
		"NewName":        {reason: "the node has another name", change: func(l *Leaf) { l.DNSNames[0] = "other" }, want: true},
		"NewUser":        {reason: "the common name is the user", change: func(l *Leaf) { l.CommonName = "other" }, want: true},
		"NewGroup":       {reason: "the organizations are the groups", change: func(l *Leaf) { l.Organization = nil }, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			now := t0
			s := Store{Dir: filepath.Join(t.TempDir(), "pki"), Now: func() time.Time { return now }}
			first := issue(t, s, testLeaf())
			now = now.Add(tc.after)
			leaf := testLeaf()
			if tc.change != nil {
				tc.change(&leaf)
			}
			second := issue(t, s, leaf)
			if got := !first.Cert.Equal(second.Cert); got != tc.want {
				t.Errorf("%s: renewed = %v, want %v", tc.reason, got, tc.want)
			}
			if diff := cmp.Diff("", planLeaf(second.Cert, leaf, now)); diff != "" {
				t.Errorf("what was issued would be issued again (-want +got):\n%s", diff)
			}
			if _, err := tls.LoadX509KeyPair(second.Path, second.Path); err != nil {
				t.Errorf("one file as certificate and key: %v", err)
			}
		})
	}
}

// ca is created at t0, whatever the clock says later.
func ca(t *testing.T, s Store) *CA {
	t.Helper()
	s.Now = func() time.Time { return t0 }
	ca, err := s.CA("ca", "test-ca")
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t *testing.T, s Store, l Leaf) *Pair {
	t.Helper()
	p, err := s.Issue(ca(t, s), l)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestIssued(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "pki"), Now: func() time.Time { return t0 }}
	ca, server := ca(t, s), issue(t, s, testLeaf())
	client := issue(t, s, Leaf{Name: "client", CommonName: "admin", Organization: []string{"system:masters"}})
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	for _, tc := range []struct {
		p     *Pair
		usage x509.ExtKeyUsage
		ok    bool
	}{
		{server, x509.ExtKeyUsageServerAuth, true},
		{server, x509.ExtKeyUsageClientAuth, false},
		{client, x509.ExtKeyUsageClientAuth, true},
		{client, x509.ExtKeyUsageServerAuth, false},
	} {
		_, err := tc.p.Cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: t0, KeyUsages: []x509.ExtKeyUsage{tc.usage}})
		if (err == nil) != tc.ok {
			t.Errorf("%s for usage %v: %v", tc.p.Path, tc.usage, err)
		}
	}
	for path, want := range map[string]os.FileMode{ca.Path: 0o600, ca.CertPath: 0o644, server.Path: 0o600, s.Dir: 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("mode of %s: %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
	if data, _ := os.ReadFile(ca.CertPath); strings.Contains(string(data), "PRIVATE") {
		t.Errorf("%s, which is handed out, holds a key", ca.CertPath)
	}
	kubeconfig := filepath.Join(t.TempDir(), "a", "kubeconfig")
	if err := WriteKubeconfig(kubeconfig, "https://127.0.0.1:6443", ca, client, true); err != nil {
		t.Fatal(err)
	}
	rc, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil || rc.Host != "https://127.0.0.1:6443" || len(rc.CertData) == 0 || len(rc.KeyData) == 0 || len(rc.CAData) == 0 {
		t.Errorf("kubeconfig: %v, %v", rc, err)
	}
	if info, err := os.Stat(kubeconfig); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the kubeconfig: %v, %v", info.Mode(), err)
	}
}

func TestBrokenFiles(t *testing.T) {
	for name, tc := range map[string]struct {
		reason   string
		break_   func(t *testing.T, dir string)
		existing bool
		names    string // the error names this file
	}{
		"CorruptCA":       {reason: "a new CA would cut off every node", break_: write("ca.pem", "garbage"), names: "ca.pem"},
		"MissingCA":       {reason: "the same", break_: remove("ca.pem"), existing: true, names: "ca.pem"},
		"CorruptLeaf":     {reason: "the disk is damaged, somebody must look", break_: write("server.pem", "garbage"), names: "server.pem"},
		"MismatchingLeaf": {reason: "two files were pasted together", break_: mixed, names: "server.pem"},
		"OtherCA":         {reason: "the directory is of another cluster", break_: foreign, names: "server.pem"},
		"CorruptKey":      {reason: "every token hangs on it", break_: write("sa.key", "garbage"), names: "sa.key"},
		"MissingKey":      {reason: "the same", break_: remove("sa.key"), existing: true, names: "sa.key"},
	} {
		t.Run(name, func(t *testing.T) {
			s := Store{Dir: t.TempDir()}
			all := func() error {
				ca, err := s.CA("ca", "test-ca")
				if err == nil {
					_, err = s.Issue(ca, testLeaf())
				}
				if err == nil {
					_, err = s.SigningKey("sa")
				}
				return err
			}
			if err := all(); err != nil {
				t.Fatal(err)
			}
			tc.break_(t, s.Dir)
			s.Existing = tc.existing
			if err := all(); err == nil || !strings.Contains(err.Error(), filepath.Join(s.Dir, tc.names)) {
				t.Errorf("%s: error %v, want one that names %s", tc.reason, err, tc.names)
			}
		})
	}
}

func write(name, text string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func mixed(t *testing.T, dir string) {
	t.Helper()
	other := issue(t, Store{Dir: filepath.Join(dir, "other")}, testLeaf())
	mine, err := readPair(filepath.Join(dir, "server.pem"))
	if err != nil {
		t.Fatal(err)
	}
	write("server.pem", string(other.KeyPEM)+string(mine.PEM))(t, dir)
}

func foreign(t *testing.T, dir string) {
	t.Helper()
	other := issue(t, Store{Dir: filepath.Join(dir, "other")}, testLeaf())
	write("server.pem", string(other.KeyPEM)+string(other.PEM))(t, dir)
}
