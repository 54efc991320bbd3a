package flyballtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"time"

	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// lifetime of certificates, longer than any test. They begin an hour ago, in case the clock is
// corrected.
const lifetime = 7 * 24 * time.Hour

// ca is the certificate authority of one cluster.
type ca struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

// pair is a certificate with its key, in PEM.
type pair struct{ cert, key []byte }

func newCA() (*ca, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating a key: %w", err)
	}
	cert, err := certutil.NewSelfSignedCACert(certutil.Config{CommonName: "flyballtest", NotBefore: time.Now().Add(-time.Hour)}, key)
	if err != nil {
		return nil, fmt.Errorf("creating a CA: %w", err)
	}
	pem, err := certutil.EncodeCertificates(cert)
	if err != nil {
		return nil, fmt.Errorf("creating a CA: %w", err)
	}
	return &ca{cert: cert, key: key, pem: pem}, nil
}

// sign generates a key and signs a certificate for it.
func (a *ca) sign(template *x509.Certificate) (p pair, err error) {
	template.SerialNumber, _ = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) // rand.Reader does not fail
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(lifetime)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, fmt.Errorf("generating a key: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return pair{}, fmt.Errorf("signing a certificate: %w", err)
	}
	if p.cert, err = certutil.EncodeCertificates(&x509.Certificate{Raw: der}); err != nil {
		return pair{}, fmt.Errorf("encoding a certificate: %w", err)
	}
	if p.key, err = keyutil.MarshalPrivateKeyToPEM(key); err != nil {
		return pair{}, fmt.Errorf("encoding a key: %w", err)
	}
	return p, nil
}

// server returns a serving certificate for this host, followed by that of the CA.
func (a *ca) server() (pair, error) {
	p, err := a.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	})
	p.cert = append(p.cert, a.pem...)
	return p, err
}

// user returns the client certificate of a user.
func (a *ca) user(name string, groups []string) (pair, error) {
	return a.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}
