package pki

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// WriteKubeconfig writes a kubeconfig, mode 0600, with which pair's holder reaches the kube-apiserver at server, a URL. It
// needs no other file, so it can be copied, and is good for as long as the certificate is. The file is left alone when it
// says so already.
func WriteKubeconfig(path, server string, ca *Authority, pair *Pair) error {
	return writeKubeconfig(path, server, ca, pair, &api.AuthInfo{ClientCertificateData: pair.PEM, ClientKeyData: pair.KeyPEM})
}

// WriteLocalKubeconfig is WriteKubeconfig for what runs on this host for long: it refers to pair's file, so that client-go
// follows the certificate when it is renewed.
func WriteLocalKubeconfig(path, server string, ca *Authority, pair *Pair) error {
	return writeKubeconfig(path, server, ca, pair, &api.AuthInfo{ClientCertificate: pair.Path, ClientKey: pair.Path})
}

func writeKubeconfig(path, server string, ca *Authority, pair *Pair, user *api.AuthInfo) error {
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

// WriteCertificate writes an authority's certificate, for a directory that is read by other parts.
func WriteCertificate(path string, ca *Authority) error { return WriteFile(path, ca.PEM, 0o644) }

// WriteFile replaces path atomically. It creates the directory, mode 0700, and does nothing when content and mode are right.
func WriteFile(path string, data []byte, mode fs.FileMode) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing %s: %w", path, err)
		}
	}()
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		return os.Chmod(path, mode)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.Write(data)
	for _, step := range []func() error{func() error { return f.Chmod(mode) }, f.Sync, f.Close} {
		if e := step(); err == nil {
			err = e
		}
	}
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename last beyond a loss of power: what a lost key has encrypted is lost too.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
