// Package objects caches single ConfigMaps and Secrets, each watched for as long as a holder refers to it.
// The Node authorizer allows a node exactly this: to read and watch the objects that its Pods name, one by
// one.
//
// Upstream's manager (pkg/kubelet/util/manager) does not report changes, polls for the first
// answer, gives up after a second, and backs off when the Node authorizer does not know the Pod yet.
package objects

import (
	"context"
	"maps"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes"
)

// Kind of an object.
type Kind string

// The kinds, in the words of upstream's messages.
const (
	ConfigMap Kind = "configmap"
	Secret    Kind = "secret"
)

// Key names an object.
type Key struct {
	Kind            Kind
	Namespace, Name string
}

// Store watches the objects that are held.
type Store struct {
	client  kubernetes.Interface
	changed func(holders []types.UID)

	mu      sync.Mutex
	watched map[Key]*watched
	closed  bool
	running sync.WaitGroup
}

// New returns an empty Store. changed is called with the holders of an object after it was changed, created
// or deleted, but not when it is first read.
func New(client kubernetes.Interface, changed func(holders []types.UID)) *Store {
	return &Store{client: client, changed: changed, watched: map[Key]*watched{}}
}

// Hold makes holder hold exactly these keys, and starts and stops watches accordingly. It does not wait.
func (s *Store) Hold(holder types.UID, keys []Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	for _, key := range keys {
		if s.watched[key] == nil {
			s.start(key)
		}
		s.watched[key].holders.Insert(holder)
	}
	for key, w := range s.watched {
		if slices.Contains(keys, key) {
			continue
		}
		if w.holders.Delete(holder); w.holders.Len() == 0 {
			w.cancel()
			delete(s.watched, key)
		}
	}
}

// start is called with mu held.
func (s *Store) start(key Key) {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watched{store: s, key: key, holders: sets.New[types.UID](), ready: make(chan struct{}), cancel: cancel}
	s.watched[key] = w
	s.running.Go(func() { w.run(ctx) })
}

func (s *Store) notify(w *watched) {
	s.mu.Lock()
	holders := slices.Collect(maps.Keys(w.holders))
	s.mu.Unlock()
	if len(holders) > 0 {
		s.changed(holders)
	}
}

// Close ends all watches and waits for them.
func (s *Store) Close() {
	s.mu.Lock()
	s.closed = true
	for _, w := range s.watched {
		w.cancel()
	}
	clear(s.watched)
	s.mu.Unlock()
	s.running.Wait()
}

// ConfigMap returns the object as last seen, or fetches it if it has no holder. It must not be changed.
func (s *Store) ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error) {
	return get[*v1.ConfigMap](ctx, s, Key{ConfigMap, namespace, name})
}

// Secret is the same for Secrets.
func (s *Store) Secret(ctx context.Context, namespace, name string) (*v1.Secret, error) {
	return get[*v1.Secret](ctx, s, Key{Secret, namespace, name})
}

func get[T object](ctx context.Context, s *Store, key Key) (T, error) {
	s.mu.Lock()
	w := s.watched[key]
	s.mu.Unlock()
	var o object
	var err error
	if w == nil {
		o, err = fetch(ctx, s.client, key)
	} else {
		o, err = w.get(ctx)
	}
	if err != nil {
		var none T
		return none, err
	}
	return o.(T), nil
}
