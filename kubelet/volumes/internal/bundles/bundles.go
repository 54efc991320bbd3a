// Package bundles reads the trust anchors of projected volumes from ClusterTrustBundles, which are watched
// as long as a Pod of this node uses any.
//
// Upstream's manager (pkg/kubelet/clustertrustbundle) does not report changes, and an event handler beside
// its own may read its cache before it was invalidated.
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

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	informers "k8s.io/client-go/informers/certificates/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"flyball.dev/kubelet/volumes/internal/lazy"
	"flyball.dev/kubelet/volumes/internal/pemtext"
)

// Query says which bundles a projected source has: the one of a name, or all of a signer that a selector
// matches.
type Query struct {
	Name, Signer string
	// Labels selects among those of the signer.
	Labels labels.Selector
}

// QueryOf reads a projected source.
func QueryOf(p *v1.ClusterTrustBundleProjection) (Query, error) {
	switch {
	case p.Name != nil:
		return Query{Name: *p.Name}, nil
	case p.SignerName == nil:
		return Query{}, errors.New("ClusterTrustBundle projection requires either name or signerName to be set")
	}
	// No selector matches nothing, an empty one everything.
	selector, err := metav1.LabelSelectorAsSelector(p.LabelSelector)
	if err != nil {
		return Query{}, fmt.Errorf("parsing the label selector of a ClusterTrustBundle projection: %w", err)
	}
	return Query{Signer: *p.SignerName, Labels: selector}, nil
}

func (q Query) matches(b *certificatesv1.ClusterTrustBundle) bool {
	if q.Name != "" {
		return b.Name == q.Name
	}
	return b.Spec.SignerName == q.Signer && q.Labels.Matches(labels.Set(b.Labels))
}

// Store answers queries from a watch.
type Store struct {
	changed  func(holders []types.UID)
	informer *lazy.Informer
	seed     maphash.Seed

	mu    sync.Mutex
	holds map[types.UID][]Query
}

// New returns a Store that watches nothing yet. changed is called with the holders of queries whose answer
// may have changed.
func New(client kubernetes.Interface, changed func(holders []types.UID)) *Store {
	s := &Store{changed: changed, seed: maphash.MakeSeed(), holds: map[types.UID][]Query{}}
	s.informer = lazy.New("ClusterTrustBundles", func() cache.SharedIndexInformer {
		return informers.NewClusterTrustBundleInformer(client, 0, cache.Indexers{})
	}, cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { s.notify(o) },
		UpdateFunc: func(before, after any) { s.notify(before, after) },
		DeleteFunc: func(o any) { s.notify(o) },
	})
	return s
}

// Hold replaces the queries of a holder. It does not wait.
func (s *Store) Hold(holder types.UID, queries []Query) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(queries) > 0 {
		s.holds[holder] = queries
	} else {
		delete(s.holds, holder)
	}
	s.informer.Need(len(s.holds) > 0)
}

// Close ends the watch and waits for its end.
func (s *Store) Close() { s.informer.Close() }

// notify calls changed with the holders of queries that match one of the states of a bundle.
func (s *Store) notify(states ...any) {
	var bundles []*certificatesv1.ClusterTrustBundle
	for _, o := range states {
		if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = gone.Obj
		}
		if b, ok := o.(*certificatesv1.ClusterTrustBundle); ok {
			bundles = append(bundles, b)
		}
	}
	s.mu.Lock()
	var holders []types.UID
	for holder, queries := range s.holds {
		if slices.ContainsFunc(queries, func(q Query) bool { return slices.ContainsFunc(bundles, q.matches) }) {
			holders = append(holders, holder)
		}
	}
	s.mu.Unlock()
	if len(holders) > 0 {
		s.changed(holders)
	}
}

// Anchors returns the certificates of all bundles that match the query, as PEM. If none does, that is an
// error unless the query is optional.
func (s *Store) Anchors(ctx context.Context, q Query, optional bool) ([]byte, error) {
	index, err := s.informer.Index(ctx)
	if err != nil {
		return nil, err
	}
	var found []*certificatesv1.ClusterTrustBundle
	for _, o := range index.List() {
		if b, ok := o.(*certificatesv1.ClusterTrustBundle); ok && q.matches(b) {
			found = append(found, b)
		}
	}
	switch {
	case len(found) > 0 || optional:
		return normalize(found, s.seed), nil
	case q.Name != "":
		return nil, apierrors.NewNotFound(certificatesv1.Resource("clustertrustbundle"), q.Name)
	}
	return nil, fmt.Errorf("combination of signerName and labelSelector matched zero ClusterTrustBundles: "+
		"signer %q, labels %q", q.Signer, q.Labels)
}

// normalize returns each certificate once, as a bare PEM block. Their order depends on the seed alone, so
// that files are not rewritten without a change. It is not that of the bundles: nobody must rely on it (see
// the field trustBundle in the API).
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
