package pki

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

const (
	// authorityLife is how long an authority is valid. It is not rotated, so it must outlive the machine.
	authorityLife = 10 * 365 * 24 * time.Hour
	// LeafLife is how long an issued certificate is valid unless the Store says otherwise. It is renewed past two thirds.
	LeafLife = 365 * 24 * time.Hour
)

// Leaf describes a certificate that an authority issues. The zero value of DNSNames and Addresses makes a client
// certificate; anything else makes one that can also serve.
type Leaf struct {
	// Name is the file's name without ".pem".
	Name string
	// CommonName becomes the user's name, Organization the user's groups (Kubernetes' x509 authentication).
	CommonName   string
	Organization []string
	DNSNames     []string
	Addresses    []netip.Addr
}

func (l Leaf) serves() bool { return len(l.DNSNames)+len(l.Addresses) > 0 }

// planLeaf says why the certificate have (nil if there is none) does not fulfil want at the time now; "" means it does.
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
		return "two thirds of its life are over"
	}
	return ""
}

// renewAt is the end of the first two thirds of a certificate's life.
func renewAt(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 3 * 2)
}

func sameStrings(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

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
