package podcerts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	informers "k8s.io/client-go/informers/certificates/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"flyball.dev/internal/trigger"
	"flyball.dev/kubelet/volumes/internal/lazy"
)

const (
	signerTimeout = 5 * time.Second  // how long Credential waits for the signer; most answer at once
	retryAfter    = time.Minute      // when to try again to create the request for a refresh
	spread        = 5 * time.Minute  // keeps Pods that started together from renewing together
	abandonAfter  = 10 * time.Minute // long enough for any watch to deliver what was created
)

// Config of a Store.
type Config struct {
	Client   kubernetes.Interface
	NodeName string
	// Changed is called with Pods whose requests were answered. It must not block.
	Changed func(pods []types.UID)
	// Event records an Event about the Pod.
	Event func(pod *v1.Pod, eventtype, reason, message string)
}

// Store has the certificates of this node's Pods.
type Store struct {
	cfg      Config
	informer *lazy.Informer[certificatesv1.PodCertificateRequest]

	mu      sync.Mutex
	holders sets.Set[types.UID]
	entries map[Source]*entry
}

// Source is one podCertificate source: the place of a projection in its volume.
type Source struct {
	Pod    types.UID
	Volume string
	Index  int
}

type entry struct {
	state
	answered trigger.Trigger // set when the signer has answered
}

// New returns a Store that watches nothing yet.
func New(cfg Config) *Store {
	s := &Store{cfg: cfg, holders: sets.New[types.UID](), entries: map[Source]*entry{}}
	s.informer = lazy.New("PodCertificateRequests", func() cache.SharedIndexInformer {
		indexers := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
		ofNode := func(o *metav1.ListOptions) { // the Node authorizer allows no more
			o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", cfg.NodeName).String()
		}
		return informers.NewFilteredPodCertificateRequestInformer(cfg.Client, metav1.NamespaceAll, 0, indexers, ofNode)
	}, s.changed)
	return s
}

// Hold says whether a Pod needs certificates from now on. If not, its keys and certificates are
// forgotten. It does not wait.
func (s *Store) Hold(pod types.UID, needs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if needs {
		s.holders.Insert(pod)
	} else {
		s.holders.Delete(pod)
		maps.DeleteFunc(s.entries, func(source Source, _ *entry) bool { return source.Pod == pod })
	}
	s.informer.Need(s.holders.Len() > 0)
}

// Close ends the watch and waits for its end.
func (s *Store) Close() { s.informer.Close() }

// changed handles a watch event of a request.
func (s *Store) changed(before, after *certificatesv1.PodCertificateRequest) {
	r := cmp.Or(after, before)
	answered := after == nil || verdict(after) != nil
	waiting := false
	s.mu.Lock()
	for source, e := range s.entries {
		if source.Pod != r.Spec.PodUID || e.pending == nil || e.pending.name != r.Name {
			continue
		}
		e.pending.seen, waiting = true, true
		if answered {
			e.answered.Set()
		}
	}
	s.mu.Unlock()
	if waiting && answered {
		s.cfg.Changed([]types.UID{r.Spec.PodUID})
	}
}

// Credential returns the credential for a source of a Pod that holds the Store. If there is none it
// creates a request, and waits a moment for the answer. Calls for one source must not overlap.
func (s *Store) Credential(
	ctx context.Context, pod *v1.Pod, source Source, p *v1.PodCertificateProjection,
) (Credential, error) {
	var c Credential
	index, err := s.informer.Index(ctx)
	if err != nil {
		return c, err
	}
	s.mu.Lock()
	if s.entries[source] == nil {
		s.entries[source] = &entry{answered: trigger.New()}
	}
	e := s.entries[source]
	s.mu.Unlock()

	timeout := time.NewTimer(signerTimeout)
	defer timeout.Stop()
	for {
		now, next, err := s.reconcile(ctx, e, index, pod, p)
		switch {
		case now.refused != "":
			return c, errors.New(now.refused)
		case now.have != nil:
			if err != nil {
				klog.FromContext(ctx).Error(err, "Cannot refresh a certificate, trying again",
					"pod", klog.KObj(pod), "signer", p.SignerName)
			}
			c = *now.have
			c.Next = next
			return c, nil
		case err != nil:
			return c, err
		}
		select {
		case <-e.answered:
		case <-timeout.C:
			return c, fmt.Errorf("waiting for a certificate: "+
				"signer %q has not answered PodCertificateRequest %s/%s yet", p.SignerName, pod.Namespace, now.pending.name)
		case <-ctx.Done():
			return c, fmt.Errorf("waiting for a certificate: %w", context.Cause(ctx))
		}
	}
}

// reconcile plans and acts until nothing is left to do.
func (s *Store) reconcile(
	ctx context.Context, e *entry, index cache.Indexer, pod *v1.Pod, p *v1.PodCertificateProjection,
) (state, time.Time, error) {
	for {
		now := s.observe(e, index, pod.Namespace)
		a, next := plan(now, time.Now())
		if a == nil {
			return now, next, nil
		}
		if err := s.act(ctx, e, a, pod, p); err != nil {
			return now, time.Now().Add(retryAfter), err
		}
	}
}

func (s *Store) observe(e *entry, index cache.Indexer, namespace string) state {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := e.state
	if now.pending == nil {
		return now
	}
	// A request that is missing or cannot be read comes with the next event.
	if o, ok, err := index.GetByKey(namespace + "/" + now.pending.name); ok && err == nil {
		now.request, _ = o.(*certificatesv1.PodCertificateRequest)
		e.pending.seen = true
	}
	p := *e.pending
	now.pending = &p
	return now
}
