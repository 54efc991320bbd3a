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

// Informer of objects of type *T is started and stopped as needed.
type Informer[T any] struct {
	what    string
	create  func() cache.SharedIndexInformer
	changed func(before, after *T)

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

// New returns an Informer that does not run yet. what is the resource, for errors; changed is called after
// the index has the change, with nil for what does not exist.
func New[T any](what string, create func() cache.SharedIndexInformer, changed func(before, after *T)) *Informer[T] {
	return &Informer[T]{what: what, create: create, changed: changed}
}

// Need starts or stops the informer. It does not wait.
func (i *Informer[T]) Need(needed bool) {
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
func (i *Informer[T]) start() *run {
	ctx, cancel := context.WithCancel(context.Background())
	r := &run{informer: i.create(), cancel: cancel}
	// Both fail only once the informer runs.
	_, _ = r.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { i.changed(nil, object[T](o)) },
		UpdateFunc: func(before, after any) { i.changed(object[T](before), object[T](after)) },
		DeleteFunc: func(o any) { i.changed(object[T](o), nil) },
	})
	_ = r.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.err = err
	})
	i.running.Go(func() { r.informer.RunWithContext(ctx) })
	return r
}

func object[T any](o any) *T {
	if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = gone.Obj
	}
	t, _ := o.(*T)
	return t
}

// Index returns the watched objects, once they were listed. It waits for that, but not for long: the error
// becomes an Event.
func (i *Informer[T]) Index(ctx context.Context) (cache.Indexer, error) {
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
func (i *Informer[T]) Close() {
	i.mu.Lock()
	i.closed = true
	i.mu.Unlock()
	i.Need(false)
	i.running.Wait()
}
