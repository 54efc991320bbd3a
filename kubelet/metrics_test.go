//go:build linux

package kubelet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"flyball.dev/kubelet/cgroups"
	"flyball.dev/kubelet/cri/remote"
	"flyball.dev/kubelet/internal/metricsdoc"
	"flyball.dev/kubelet/pod"
	"flyball.dev/kubelet/volumes"
	"flyball.dev/kubelet/volumes/csi"
)

func TestDocumentation(t *testing.T) {
	documented := metricsdoc.Names(t, "..", "/metrics: the node agent")
	groups, err := cgroups.New(cgroups.Root)
	if err != nil {
		t.Skipf("no usable cgroups: %v", err)
	}
	client := fake.NewClientset()
	vols, err := volumes.New(volumes.Config{RootDir: t.TempDir(), Client: client, NodeName: "alpha"})
	if err != nil {
		t.Fatal(err)
	}
	pods := pod.New(pod.Config{NodeName: "alpha", Client: client})
	own := collectors(Config{NodeName: "alpha"}, pods, remote.New(nil, nil), groups, vols, csi.New(csi.Config{Client: fake.NewClientset()}))
	if _, err := gatherer(own, nil); err != nil {
		t.Fatalf("the metrics cannot be registered together: %v", err)
	}
	if diff := cmp.Diff(sets.List(documented), sets.List(metricsdoc.Described(own...))); diff != "" {
		t.Errorf("docs/metrics.md lists other metrics than are served (-listed +served):\n%s", diff)
	}
}

func TestCertificates(t *testing.T) {
	end := time.Now().Add(time.Hour)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	both := Config{
		Client: &rest.Config{TLSClientConfig: rest.TLSClientConfig{CertData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: [][]byte{der}}, nil
		},
	}
	for name, tc := range map[string]struct {
		reason string
		cfg    Config
		want   int
	}{
		"both": {"Each is valid for an hour.", both, 2},
		"none": {"A certificate that is not there has no figure.", Config{
			Client:         &rest.Config{BearerToken: "t"},
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("not issued yet") },
		}, 0},
	} {
		registry := prometheus.NewRegistry()
		registry.MustRegister(certificates{tc.cfg})
		families, err := registry.Gather()
		if err != nil || len(families) != tc.want {
			t.Errorf("%s: %s got %d metrics (%v), want %d", name, tc.reason, len(families), err, tc.want)
		}
		for _, f := range families {
			if ttl := f.Metric[0].Gauge.GetValue(); ttl < 3500 || ttl > 3600 {
				t.Errorf("%s: %s %s is %v s", name, tc.reason, f.GetName(), ttl)
			}
		}
	}
}
