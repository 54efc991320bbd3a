package pki

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"flyball.dev/internal/atomicfile"
)

// WriteKubeconfig writes a kubeconfig, mode 0600, for the user of pair and the kube-apiserver at
// server, a URL. It contains the key, so it can be copied, and is valid as long as the certificate.
func WriteKubeconfig(path, server string, ca *CA, pair *Pair) error {
	return writeKubeconfig(path, server, ca, pair, &api.AuthInfo{ClientCertificateData: pair.PEM, ClientKeyData: pair.KeyPEM})
}

// WriteLocalKubeconfig is WriteKubeconfig for long-running clients on this host: it refers to
// pair's file, so that client-go reads the certificate again when it is renewed.
func WriteLocalKubeconfig(path, server string, ca *CA, pair *Pair) error {
	return writeKubeconfig(path, server, ca, pair, &api.AuthInfo{ClientCertificate: pair.Path, ClientKey: pair.Path})
}

func writeKubeconfig(path, server string, ca *CA, pair *Pair, user *api.AuthInfo) error {
	const name = "flyball"
	data, err := clientcmd.Write(api.Config{
		Clusters:       map[string]*api.Cluster{name: {Server: server, CertificateAuthorityData: ca.PEM}},
		AuthInfos:      map[string]*api.AuthInfo{pair.Cert.Subject.CommonName: user},
		Contexts:       map[string]*api.Context{name: {Cluster: name, AuthInfo: pair.Cert.Subject.CommonName}},
		CurrentContext: name,
	})
	if err != nil {
		return fmt.Errorf("encoding the kubeconfig %s: %w", path, err)
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
