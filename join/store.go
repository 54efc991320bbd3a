package join

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/certificate"
	"k8s.io/klog/v2"
)

// aside is the suffix of a file that could not be used.
const aside = ".broken"

// current is the link to the certificate in use. next is the link that upstream's store creates
// before it renames it to current. If only next exists, the store completes that.
func current(dir, pair string) string { return filepath.Join(dir, pair+"-current.pem") }
func next(dir, pair string) string    { return filepath.Join(dir, pair+"-updated.pem") }

// newStore opens upstream's store of a pair.
func newStore(log klog.Logger, pair, dir string) (certificate.FileStore, error) {
	err := relink(pair, dir)
	var store certificate.FileStore
	if err == nil {
		store, err = certificate.NewFileStoreWithLogger(log.V(4), pair, dir, dir, "", "")
	}
	if err != nil {
		return nil, fmt.Errorf("opening the node's certificates in %s: %w", dir, err)
	}
	return store, nil
}

// relink turns the current certificate into a link again if it is a file, as in most copies and
// backups: the store reads such a file, but never replaces it.
func relink(pair, dir string) error {
	path := current(dir, pair)
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return nil //nolint:nilerr // the store reports it
	}
	copied := filepath.Join(dir, pair+"-copied.pem")
	if err := os.RemoveAll(next(dir, pair)); err != nil {
		return err
	}
	if err := os.Symlink(copied, next(dir, pair)); err != nil {
		return err
	}
	return os.Rename(path, copied) // the store renames the link
}

// setAsideBroken renames the serving certificate if it cannot be used, so that another one is
// requested.
func (c *Certificates) setAsideBroken(log klog.Logger) {
	why := c.unusable()
	if why == nil {
		return
	}
	for _, path := range []string{current(c.Dir, servingPair), next(c.Dir, servingPair)} {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := errors.Join(os.RemoveAll(path+aside), os.Rename(path, path+aside)); err != nil {
			log.Error(err, "The kubelet's serving certificate cannot be used, and renaming it failed", "file", path, "reason", why)
			continue
		}
		log.Error(why, "The kubelet's serving certificate cannot be used: it was renamed, and another one is requested", "file", path, "aside", path+aside)
	}
}

// unusable returns why the serving certificate cannot be used, nil if it can or there is none.
// Upstream's manager replaces one that has other names or has expired.
func (c *Certificates) unusable() error {
	store, err := newStore(klog.Background(), servingPair, c.Dir)
	if err != nil {
		return err
	}
	cert, err := store.Current()
	if none := (*certificate.NoCertKeyError)(nil); errors.As(err, &none) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.foreign(cert)
}

// foreign returns an error if another cluster's CA has signed the certificate: the API server would
// refuse it, and the manager would keep it for a year.
func (c *Certificates) foreign(cert *tls.Certificate) error {
	cas, err := certutil.CertsFromFile(filepath.Join(c.Dir, caFile))
	if err != nil {
		return nil //nolint:nilerr // the kubelet, which reads it too, reports it
	}
	if slices.ContainsFunc(cas, func(ca *x509.Certificate) bool { return cert.Leaf.CheckSignatureFrom(ca) == nil }) {
		return nil
	}
	return fmt.Errorf("the CA of the cluster, in %s, has not signed it", caFile)
}
