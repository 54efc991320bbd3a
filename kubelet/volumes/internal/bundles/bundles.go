// Package bundles reads the trust anchors of projected volumes from ClusterTrustBundles, which are
// watched as long as a Pod of this node uses any.
//
// Upstream's manager (pkg/kubelet/clustertrustbundle) does not report changes, and an event handler
// beside its own may read its cache before it was invalidated.
package bundles

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"

	"github.com/samber/lo"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	informers "k8s.io/client-go/informers/certificates/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/volumes/internal/lazy"
	"flyball.dev/kubelet/volumes/internal/pemtext"
)

// Source is the projection of the bundle of a name, or of all of a signer that a selector matches.
type Source = v1.ClusterTrustBundleProjection

func matches(p *Source, b *certificatesv1.ClusterTrustBundle) bool {
	if p.Name != nil {
		return b.Name == *p.Name
	}
	// No selector matches nothing, an empty one everything.
	selector, err := metav1.LabelSelectorAsSelector(p.LabelSelector)
	return err == nil && b.Spec.SignerName == ptr.Deref(p.SignerName, "") && selector.Matches(labels.Set(b.Labels))
}

// Store reads sources from a watch.
type Store struct {
	changed  func(holders []types.UID)
	informer *lazy.Informer[certificatesv1.ClusterTrustBundle]
	seed     maphash.Seed

	mu    sync.Mutex
	holds map[types.UID][]*Source
}

// New returns a Store that watches nothing yet. changed is called with the holders of sources that
// may have changed.
func New(client kubernetes.Interface, changed func(holders []types.UID)) *Store {
	s := &Store{changed: changed, seed: maphash.MakeSeed(), holds: map[types.UID][]*Source{}}
	s.informer = lazy.New("ClusterTrustBundles", func() cache.SharedIndexInformer {
		return informers.NewClusterTrustBundleInformer(client, 0, cache.Indexers{})
	}, s.notify)
	return s
}

// Hold replaces the sources of a holder. It does not wait.
func (s *Store) Hold(holder types.UID, sources []*Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds[holder] = sources; len(sources) == 0 {
		delete(s.holds, holder)
	}
	s.informer.Need(len(s.holds) > 0)
}

// Close ends the watch and waits for its end.
func (s *Store) Close() { s.informer.Close() }

// notify calls changed with the holders of sources that a bundle belongs to, or belonged to.
func (s *Store) notify(before, after *certificatesv1.ClusterTrustBundle) {
	concerns := func(p *Source) bool {
		return before != nil && matches(p, before) || after != nil && matches(p, after)
	}
	s.mu.Lock()
	holders := lo.Keys(lo.PickBy(s.holds, func(_ types.UID, sources []*Source) bool {
		return slices.ContainsFunc(sources, concerns)
	}))
	s.mu.Unlock()
	if len(holders) > 0 {
		s.changed(holders)
	}
}

// Anchors returns the certificates of all bundles of a source, as PEM. If there is none, that is an
// error unless the source is optional.
func (s *Store) Anchors(ctx context.Context, p *Source) ([]byte, error) {
	selector, err := metav1.LabelSelectorAsSelector(p.LabelSelector)
	switch {
	case p.Name == nil && p.SignerName == nil:
		return nil, errors.New("ClusterTrustBundle projection requires either name or signerName to be set")
	case err != nil:
		return nil, fmt.Errorf("parsing the label selector of a ClusterTrustBundle projection: %w", err)
	}
	index, err := s.informer.Index(ctx)
	if err != nil {
		return nil, err
	}
	var found []*certificatesv1.ClusterTrustBundle
	for _, o := range index.List() {
		if b, ok := o.(*certificatesv1.ClusterTrustBundle); ok && matches(p, b) {
			found = append(found, b)
		}
	}
	switch {
	case len(found) > 0 || ptr.Deref(p.Optional, false):
		return normalize(found, s.seed), nil
	case p.Name != nil:
		return nil, apierrors.NewNotFound(certificatesv1.Resource("clustertrustbundle"), *p.Name)
	}
	return nil, fmt.Errorf("combination of signerName and labelSelector matched zero ClusterTrustBundles: "+
		"signer %q, labels %q", *p.SignerName, selector)
}

// normalize returns each certificate once, as a bare PEM block. Their order depends on the seed
// alone, so that files are not rewritten without a change. It is not that of the bundles: nobody
// must rely on it (see the field trustBundle in the API).
func normalize(list []*certificatesv1.ClusterTrustBundle, seed maphash.Seed) []byte {
	var anchors [][]byte
	for _, b := range list {
		anchors = append(anchors, pemtext.Decode([]byte(b.Spec.TrustBundle))...)
	}
	slices.SortFunc(anchors, func(a, b []byte) int {
		return cmp.Or(cmp.Compare(maphash.Bytes(seed, a), maphash.Bytes(seed, b)), bytes.Compare(a, b))
	})
	return pemtext.Encode(slices.CompactFunc(anchors, bytes.Equal))
}
