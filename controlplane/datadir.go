package controlplane

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/yaml"

	"flyball.dev/controlplane/pki"
	bundled "flyball.dev/controlplane/version"
	"flyball.dev/internal/filelock"
)

// cluster is DataDir/server/cluster.yaml: the settings that cannot change after a cluster is
// created, since Services, Pods and certificates carry them. It is written last: if it exists, all
// other files have existed.
type cluster struct {
	ID string `json:"id"`
	// Ranges and addresses, with commas between two.
	ClusterCIDR   string `json:"clusterCIDR"`
	ServiceCIDR   string `json:"serviceCIDR"`
	ClusterDNS    string `json:"clusterDNS"`
	ClusterDomain string `json:"clusterDomain"`
	// Kubernetes is the newest version that has used this data directory.
	Kubernetes string `json:"kubernetes"`
}

// lockDataDir makes sure that no other process uses the data directory, until the returned file is
// closed.
func lockDataDir(cfg Config) (*os.File, error) {
	path := cfg.server("lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("creating the data directory: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the data directory's lock: %w", err)
	}
	held, err := filelock.Try(f)
	if err == nil && !held {
		holder, _ := os.ReadFile(path)
		err = fmt.Errorf("process %s uses it; stop that process first, or choose another directory", bytes.TrimSpace(holder))
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getpid())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking the data directory %s: %w", cfg.DataDir, err)
	}
	return f, nil
}

// readCluster reads cluster.yaml and checks that cfg fits it; existing is false if there is no
// cluster yet.
func readCluster(cfg Config) (have cluster, existing bool, err error) {
	path := cfg.server("cluster.yaml")
	want := cluster{
		ID: uuid.NewString(), ClusterCIDR: commas(cfg.ClusterCIDRs), ServiceCIDR: commas(cfg.ServiceCIDRs),
		ClusterDNS: commas(cfg.ClusterDNS), ClusterDomain: cfg.ClusterDomain, Kubernetes: bundled.Kubernetes,
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return want, false, nil
	}
	if err == nil {
		err = yaml.UnmarshalStrict(data, &have)
	}
	if err == nil && have.ID == "" {
		err = errors.New("it has no id")
	}
	if err != nil {
		return have, true, fmt.Errorf("reading %s: %w; restore the file from a backup", path, err)
	}
	for _, f := range []struct{ name, have, want string }{
		{"cluster CIDR", have.ClusterCIDR, want.ClusterCIDR},
		{"Service CIDR", have.ServiceCIDR, want.ServiceCIDR},
		{"cluster DNS address", have.ClusterDNS, want.ClusterDNS},
		{"cluster domain", have.ClusterDomain, want.ClusterDomain},
	} {
		if f.have != f.want {
			return have, true, fmt.Errorf("checking the data directory %s: its cluster was created with the %s %s, not %s; configure the former, or choose another data directory", cfg.DataDir, f.name, f.have, f.want)
		}
	}
	if newer(have.Kubernetes, bundled.Kubernetes) {
		return have, true, fmt.Errorf("checking the data directory %s: it was last used with Kubernetes %s, which is newer than the %s in this program; use a program at least as new", cfg.DataDir, have.Kubernetes, bundled.Kubernetes)
	}
	have.Kubernetes = bundled.Kubernetes
	return have, true, nil
}

// newer reports whether a's minor version is newer than b's: stored objects may have fields that b
// does not know.
func newer(a, b string) bool {
	va, errA := version.ParseSemantic(a)
	vb, errB := version.ParseSemantic(b)
	return errA == nil && errB == nil && version.MajorMinor(vb.Major(), vb.Minor()).LessThan(version.MajorMinor(va.Major(), va.Minor()))
}

func (c cluster) write(cfg Config) error {
	data, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("encoding cluster.yaml: %w", err)
	}
	return pki.WriteFile(cfg.server("cluster.yaml"), data, 0o600)
}

// ensureEncryption writes the configuration by which kube-apiserver encrypts Secrets in etcd, with
// a new key, unless the file exists. Reading falls back to plain text, so that an unencrypted
// backup can be restored.
func ensureEncryption(cfg Config, existing bool) (path string, err error) {
	path = cfg.server("encryption.yaml")
	_, err = os.Stat(path)
	switch {
	case err == nil:
		return path, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("reading %s: %w", path, err)
	case existing:
		return "", fmt.Errorf("reading %s: it is missing, and the Secrets of this cluster cannot be read without the key in it; restore the file from a backup", path)
	}
	key := make([]byte, 32) // secretbox: XSalsa20 and Poly1305
	if _, err := rand.Read(key); err != nil {
		return "", fmt.Errorf("generating the encryption key: %w", err)
	}
	return path, pki.WriteFile(path, fmt.Appendf(nil, `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - secretbox:
      keys:
      - name: key1
        secret: %s
  - identity: {}
`, base64.StdEncoding.EncodeToString(key)), 0o600)
}
