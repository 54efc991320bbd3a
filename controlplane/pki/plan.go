package pki

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
)

const (
	// caLife is how long a CA is valid. It is not rotated, so it must outlive the host.
	caLife = 10 * 365 * 24 * time.Hour
	// LeafLife is how long an issued certificate is valid unless the Store says otherwise. It is
	// renewed after two thirds of that.
	LeafLife = 365 * 24 * time.Hour
)

// Leaf describes a certificate that a CA issues. The zero value of DNSNames and Addresses means a
// client certificate, everything else a serving certificate.
type Leaf struct {
	// Name is the file's name without ".pem".
	Name string
	// CommonName becomes the user's name, Organization the user's groups (Kubernetes' x509
	// authentication).
	CommonName   string
	Organization []string
	DNSNames     []string
	Addresses    []netip.Addr
}

func (l Leaf) serves() bool { return len(l.DNSNames)+len(l.Addresses) > 0 }

// planLeaf returns why the certificate have (nil if there is none) must be replaced by one for want
// at the time now; "" if it need not.
func planLeaf(have *x509.Certificate, want Leaf, now time.Time) (reason string) {
	switch {
	case have == nil:
		return "it does not exist"
	case have.Subject.CommonName != want.CommonName || !sameStrings(have.Subject.Organization, want.Organization):
		return fmt.Sprintf("its subject is %q", have.Subject)
	case !sameStrings(have.DNSNames, want.DNSNames) || !sameAddresses(have, want.Addresses):
		return "the names or addresses that it is for have changed"
	case now.Before(have.NotBefore):
		return "it is not valid yet; has the clock been set back?"
	case now.After(renewAt(have)):
		return "two thirds of its validity are over"
	}
	return ""
}

func renewAt(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 3 * 2)
}

func sameStrings(a, b []string) bool { return sets.New(a...).Equal(sets.New(b...)) }

func sameAddresses(c *x509.Certificate, want []netip.Addr) bool {
	var have, wanted []string
	for _, ip := range c.IPAddresses {
		have = append(have, ip.String())
	}
	for _, a := range want {
		wanted = append(wanted, a.Unmap().String())
	}
	return sameStrings(have, wanted)
}
