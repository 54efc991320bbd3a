package pki

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd/api"

	"flyball.dev/internal/atomicfile"
	"flyball.dev/internal/kubeconfig"
)

// WriteKubeconfig writes a kubeconfig, mode 0600, for the user of pair and the kube-apiserver at
// server, a URL. A portable one contains the key, so it can be copied, and is valid as long as the
// certificate. Others, for long-running clients on this host, refer to pair's file, so that
// client-go reads the certificate again when it is renewed.
func WriteKubeconfig(path, server string, ca *CA, pair *Pair, portable bool) error {
	user := api.AuthInfo{ClientCertificate: pair.Path, ClientKey: pair.Path}
	if portable {
		user = api.AuthInfo{ClientCertificateData: pair.PEM, ClientKeyData: pair.KeyPEM}
	}
	cluster := api.Cluster{Server: server, CertificateAuthorityData: ca.PEM}
	data, err := kubeconfig.Encode(cluster, pair.Cert.Subject.CommonName, user)
	if err != nil {
		return err
	}
	return WriteFile(path, data, 0o600)
}

// WriteFile replaces path atomically and durably: what a lost key has encrypted would be lost too.
// It creates the directory, mode 0700, and writes nothing when content and mode are right.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		return os.Chmod(path, mode)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return atomicfile.Write(path, data, mode)
}
