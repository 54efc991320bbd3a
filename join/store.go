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

// aside ends the name of a file that could not be used.
const aside = ".broken"

// current is the link to the certificate of a pair that is in use, next the one that upstream's store makes before it
// takes the other's place. When only that is there, the store goes on from there.
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

// relink makes a link of the current certificate again where it has become a file, as it does in most copies and backups:
// the store reads such a file, but never replaces it.
func relink(pair, dir string) error {
	path := current(dir, pair)
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return nil //nolint:nilerr // the store says what is wrong
	}
	copied := filepath.Join(dir, pair+"-copied.pem")
	if err := os.RemoveAll(next(dir, pair)); err != nil {
		return err
	}
	if err := os.Symlink(copied, next(dir, pair)); err != nil {
		return err
	}
	return os.Rename(path, copied) // the store takes the last step
}

// setAsideBroken puts the serving certificate aside if it cannot be used, so that another one is asked for: nothing is lost
// with it.
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
			log.Error(err, "The kubelet's serving certificate cannot be put aside, though it cannot be used", "file", path, "reason", why)
			continue
		}
		log.Error(why, "The kubelet's serving certificate cannot be used: it was put aside, and another one is requested", "file", path, "aside", path+aside)
	}
}

// unusable says why the serving certificate that is there cannot be used. One that is for other names or has expired is
// replaced by upstream's manager.
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

// foreign tells whether another cluster's authority has signed the certificate: the API server would refuse it, and the
// manager would keep it for a year.
func (c *Certificates) foreign(cert *tls.Certificate) error {
	authorities, err := certutil.CertsFromFile(filepath.Join(c.Dir, authorityFile))
	if err != nil {
		return nil //nolint:nilerr // whoever checks clients with it says so
	}
	if slices.ContainsFunc(authorities, func(ca *x509.Certificate) bool { return cert.Leaf.CheckSignatureFrom(ca) == nil }) {
		return nil
	}
	return fmt.Errorf("it is not signed by the authority of the cluster, which is in %s", authorityFile)
}
