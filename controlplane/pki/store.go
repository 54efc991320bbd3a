package pki

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// clockSkew is how far in the past certificates begin, for hosts whose clocks are a little behind.
const clockSkew = 5 * time.Minute

// Store is a directory of key pairs.
type Store struct {
	// Dir is created, mode 0700, when the first file is written.
	Dir string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Life is how long a leaf certificate is valid; zero means LeafLife.
	Life time.Duration
	// Existing says that the cluster was created before. A missing CA or service-account key is
	// then an error: a new one would invalidate everything that the old one signed.
	Existing bool
}

// Pair is a key and its certificate.
type Pair struct {
	// Path is the file that holds both.
	Path string
	Key  crypto.PrivateKey
	Cert *x509.Certificate
	// PEM is the certificate alone, KeyPEM the key alone.
	PEM, KeyPEM []byte
}

// CA is the pair of a certificate authority.
type CA struct {
	Pair
	// CertPath is the file with the certificate alone, which others may read.
	CertPath string
}

func (s Store) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// CA reads the certificate authority with this file name, or creates it. NAME.crt beside it holds
// its certificate alone.
func (s Store) CA(name, commonName string) (*CA, error) {
	path := filepath.Join(s.Dir, name+".pem")
	pair, err := readPair(path)
	if errors.Is(err, fs.ErrNotExist) && s.Existing {
		return nil, missing(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		now := s.now()
		pair, err = create(path, func(key crypto.Signer) ([]byte, error) {
			template := &x509.Certificate{
				Subject:   pkix.Name{CommonName: commonName},
				NotBefore: now.Add(-clockSkew), NotAfter: now.Add(caLife),
				KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
				BasicConstraintsValid: true, IsCA: true,
			}
			return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		})
	}
	switch {
	case err != nil:
		return nil, err
	case !pair.Cert.IsCA:
		return nil, fmt.Errorf("reading the certificate authority %s: the certificate in it is not that of a CA; restore the file from a backup", path)
	case s.now().After(pair.Cert.NotAfter):
		return nil, fmt.Errorf("reading the certificate authority %s: it expired on %s; set the clock right, or start with a new data directory", path, pair.Cert.NotAfter.Format(time.DateOnly))
	}
	a := &CA{Pair: *pair, CertPath: filepath.Join(s.Dir, name+".crt")}
	return a, WriteFile(a.CertPath, a.PEM, 0o644)
}

// Issue reads the pair that leaf describes, and issues it again when plan.go decides so. It returns
// an error that names the file if that cannot be read or another CA has issued the certificate:
// both mean that directories have been mixed up.
func (s Store) Issue(ca *CA, leaf Leaf) (*Pair, error) {
	path := filepath.Join(s.Dir, leaf.Name+".pem")
	pair, err := readPair(path)
	var have *x509.Certificate
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case pair.Cert.CheckSignatureFrom(ca.Cert) != nil:
		return nil, fmt.Errorf("reading the certificate %s: this cluster's CA %s has not issued it, so it belongs to another cluster; remove the file if that cluster does not need it", path, ca.Path)
	default:
		have = pair.Cert
	}
	if planLeaf(have, leaf, s.now()) == "" {
		return pair, nil
	}
	return create(path, func(key crypto.Signer) ([]byte, error) {
		return x509.CreateCertificate(rand.Reader, leaf.template(s.now(), cmp.Or(s.Life, LeafLife)), ca.Cert, key.Public(), ca.Key)
	})
}

// SigningKey reads a private key without a certificate (the one that signs service-account tokens),
// or creates it, and returns the path of its file.
func (s Store) SigningKey(name string) (string, error) {
	path := filepath.Join(s.Dir, name+".key")
	_, err := keyutil.PrivateKeyFromFile(path)
	switch {
	case err == nil:
		return path, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("reading the key %s: %w; restore the file from a backup", path, err)
	case s.Existing:
		return "", missing(path)
	}
	key, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		return "", fmt.Errorf("generating the key %s: %w", path, err)
	}
	return path, WriteFile(path, key, 0o600)
}

func (l Leaf) template(now time.Time, life time.Duration) *x509.Certificate {
	t := &x509.Certificate{
		Subject:   pkix.Name{CommonName: l.CommonName, Organization: l.Organization},
		NotBefore: now.Add(-min(clockSkew, life/10)), NotAfter: now.Add(life),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		DNSNames:    l.DNSNames,
	}
	for _, a := range l.Addresses {
		t.IPAddresses = append(t.IPAddresses, a.Unmap().AsSlice())
	}
	if l.serves() {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	return t
}

// create generates a key, lets sign issue its certificate, and writes both to path.
func create(path string, sign func(crypto.Signer) ([]byte, error)) (*Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating the key for %s: %w", path, err)
	}
	der, err := sign(key)
	var c *x509.Certificate
	if err == nil {
		c, err = x509.ParseCertificate(der)
	}
	var p *Pair
	if err == nil {
		p, err = newPair(path, key, c)
	}
	if err != nil {
		return nil, fmt.Errorf("issuing the certificate %s: %w", path, err)
	}
	return p, WriteFile(path, append(slices.Clip(p.KeyPEM), p.PEM...), 0o600)
}

// readPair reads a key and its certificate. The error is fs.ErrNotExist if there is no such file.
func readPair(path string) (*Pair, error) {
	read, err := tls.LoadX509KeyPair(path, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var p *Pair
	if err == nil {
		p, err = newPair(path, read.PrivateKey, read.Leaf)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the key and certificate in %s: %w; restore the file from a backup", path, err)
	}
	return p, nil
}

func newPair(path string, key crypto.PrivateKey, c *x509.Certificate) (*Pair, error) {
	keyPEM, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return nil, err
	}
	certPEM, err := cert.EncodeCertificates(c)
	return &Pair{Path: path, Key: key, Cert: c, PEM: certPEM, KeyPEM: keyPEM}, err
}

func missing(path string) error {
	return fmt.Errorf("reading %s: the cluster in this data directory was created with it, and it is missing; restore the file from a backup, or start with a new data directory", path)
}
