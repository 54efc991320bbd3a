// Package lazy runs an informer only while it is needed. A node with no Pod that uses a kind of object
// keeps no watch and no cache of it.
package lazy

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"
)

// readTimeout bounds the wait for the first list of objects.
const readTimeout = 30 * time.Second

// Informer is started and stopped as needed.
type Informer struct {
	what    string
	create  func() cache.SharedIndexInformer
	handler cache.ResourceEventHandler

	mu      sync.Mutex
	current *run
	closed  bool
	running sync.WaitGroup
}

// run is one life of the informer.
type run struct {
	informer cache.SharedIndexInformer
	cancel   context.CancelFunc

	mu  sync.Mutex
	err error // the last failure to list or watch
}

// New returns an Informer that does not run yet. what is the resource, for errors; handler is called after
// the index has the change.
func New(what string, create func() cache.SharedIndexInformer, handler cache.ResourceEventHandler) *Informer {
	return &Informer{what: what, create: create, handler: handler}
}

// Need starts or stops the informer. It does not wait.
func (i *Informer) Need(needed bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case needed && i.current == nil && !i.closed:
		i.current = i.start()
	case !needed && i.current != nil:
		i.current.cancel()
		i.current = nil
	}
}

// start is called with mu held.
func (i *Informer) start() *run {
	ctx, cancel := context.WithCancel(context.Background())
	r := &run{informer: i.create(), cancel: cancel}
	// Both fail only once the informer runs.
	_, _ = r.informer.AddEventHandler(i.handler)
	_ = r.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.err = err
	})
	i.running.Go(func() { r.informer.RunWithContext(ctx) })
	return r
}

// Index returns the watched objects, once they were listed. It waits for that, but not for long: the error
// becomes an Event.
func (i *Informer) Index(ctx context.Context) (cache.Indexer, error) {
	i.mu.Lock()
	r := i.current
	i.mu.Unlock()
	if r == nil {
		return nil, fmt.Errorf("reading %s: they are not watched any more", i.what)
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	select {
	case <-r.informer.HasSyncedChecker().Done():
		return r.informer.GetIndexer(), nil
	case <-ctx.Done():
		r.mu.Lock()
		defer r.mu.Unlock()
		return nil, fmt.Errorf("reading %s: %w", i.what, cmp.Or(r.err, context.Cause(ctx)))
	}
}

// Close stops the informer for good and waits for its end.
func (i *Informer) Close() {
	i.mu.Lock()
	i.closed = true
	i.mu.Unlock()
	i.Need(false)
	i.running.Wait()
}
