// Package lazy runs an informer only while it is needed. A node with no Pod that uses a kind of
// object keeps no watch and no cache of it.
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

// Informer of objects of type *T is started and stopped as needed.
type Informer[T any] struct {
	what    string
	create  func() cache.SharedIndexInformer
	changed func(before, after *T)

	mu       sync.Mutex
	informer cache.SharedIndexInformer // nil unless needed
	cancel   context.CancelFunc        // ends it
	err      error                     // of the last attempt to list or watch that failed
	closed   bool
	running  sync.WaitGroup
}

// New returns an Informer that does not run yet. what is the resource, for errors; changed is
// called after the index has the change, with nil for what does not exist.
func New[T any](what string, create func() cache.SharedIndexInformer, changed func(before, after *T)) *Informer[T] {
	return &Informer[T]{what: what, create: create, changed: changed}
}

// Need starts or stops the informer. It does not wait.
func (i *Informer[T]) Need(needed bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case needed && i.informer == nil && !i.closed:
		i.start()
	case !needed && i.informer != nil:
		i.cancel()
		i.informer = nil
	}
}

// start is called with mu held.
func (i *Informer[T]) start() {
	ctx, cancel := context.WithCancel(context.Background()) //nolint:gosec // kept in the field cancel
	informer := i.create()
	i.informer, i.cancel, i.err = informer, cancel, nil
	// Both fail only once the informer runs.
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { i.changed(nil, object[T](o)) },
		UpdateFunc: func(before, after any) { i.changed(object[T](before), object[T](after)) },
		DeleteFunc: func(o any) { i.changed(object[T](o), nil) },
	})
	_ = informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.informer == informer {
			i.err = err
		}
	})
	i.running.Go(func() { informer.RunWithContext(ctx) })
}

func object[T any](o any) *T {
	if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = gone.Obj
	}
	t, _ := o.(*T)
	return t
}

// Index returns the watched objects, once they were listed. It waits for that, but not for long:
// the error becomes an Event.
func (i *Informer[T]) Index(ctx context.Context) (cache.Indexer, error) {
	i.mu.Lock()
	informer := i.informer
	i.mu.Unlock()
	if informer == nil {
		return nil, fmt.Errorf("reading %s: they are not watched any more", i.what)
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	select {
	case <-informer.HasSyncedChecker().Done():
		return informer.GetIndexer(), nil
	case <-ctx.Done():
		i.mu.Lock()
		defer i.mu.Unlock()
		return nil, fmt.Errorf("reading %s: %w", i.what, cmp.Or(i.err, context.Cause(ctx)))
	}
}

// Close stops the informer for good and waits for its end.
func (i *Informer[T]) Close() {
	i.mu.Lock()
	i.closed = true
	i.mu.Unlock()
	i.Need(false)
	i.running.Wait()
}
