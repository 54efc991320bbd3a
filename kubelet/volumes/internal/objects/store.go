// Package objects caches single ConfigMaps and Secrets, each watched for as long as a holder refers
// to it. The Node authorizer allows a node exactly this: to read and watch the objects that its
// Pods name, one by one.
//
// Upstream's manager (pkg/kubelet/util/manager) does not report changes, polls for the first
// answer, gives up after a second, and backs off when the Node authorizer does not know the Pod
// yet.
package objects

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
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

// New returns an empty Store. changed is called with the holders of an object after it was changed,
// created or deleted, but not when it is first read.
func New(client kubernetes.Interface, changed func(holders []types.UID)) *Store {
	return &Store{client: client, changed: changed, watched: map[Key]*watched{}}
}

// Hold makes holder hold exactly these keys, and starts and stops watches accordingly. It does not
// wait.
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

// ConfigMap returns the object as last seen, or fetches it if it has no holder. It must not be
// changed.
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
	if w == nil {
		o, err := fetch(ctx, s.client, key)
		t, _ := o.(T) // nil if there is an error
		return t, err
	}
	select {
	case <-w.ready:
		s.mu.Lock()
		defer s.mu.Unlock()
		t, _ := w.object.(T)
		return t, w.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("waiting for %s %s/%s: %w", key.Kind, key.Namespace, key.Name, context.Cause(ctx))
	}
}

// object is a ConfigMap or a Secret.
type object interface {
	metav1.Object
	runtime.Object
}

// watched is one object with its watch.
type watched struct {
	store  *Store
	key    Key
	cancel context.CancelFunc
	ready  chan struct{} // closed when there is a first answer

	// The Store's lock guards what follows. Before the first answer there is neither object nor
	// err.
	holders sets.Set[types.UID]
	object  object
	err     error
}

// run reads the object, then watches it, again and again until ctx ends.
func (w *watched) run(ctx context.Context) {
	delay := wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.5, Steps: 6, Cap: 30 * time.Second}
	for backoff := delay; ctx.Err() == nil; {
		o, err := fetch(ctx, w.store.client, w.key)
		if ctx.Err() != nil {
			return
		}
		w.update(o, err)
		if o != nil && immutable(o) {
			return
		}
		if err == nil || apierrors.IsNotFound(err) {
			if err = w.watch(ctx); err == nil {
				// The server ends watches now and then; that is not a failure.
				backoff = delay
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff.Step()):
		}
	}
}

// watch follows the object until the server ends the watch, or ctx ends.
func (w *watched) watch(ctx context.Context) error {
	events, err := startWatch(ctx, w.store.client, w.key)
	if err != nil {
		return err
	}
	defer events.Stop()
	defer context.AfterFunc(ctx, events.Stop)()
	for event := range events.ResultChan() {
		o, ok := event.Object.(object)
		switch {
		case event.Type == watch.Error:
			return apierrors.FromObject(event.Object)
		case !ok || event.Type == watch.Bookmark || o.GetName() != w.key.Name:
		case event.Type == watch.Deleted:
			w.update(o, w.key.notFound())
		default:
			w.update(o, nil)
		}
	}
	return nil
}

// update remembers a state, and notifies the holders if it differs from the known one.
func (w *watched) update(o object, err error) {
	w.store.mu.Lock()
	first, changed := w.object == nil && w.err == nil, false
	switch {
	case w.object != nil && o != nil && older(o, w.object):
		// The watch begins with the state in the API server's cache, and fetch has read from etcd.
	case w.object != nil && err != nil && !apierrors.IsNotFound(err):
		// A failed request says nothing about the object.
	case err != nil:
		changed = w.err == nil || apierrors.ReasonForError(w.err) != apierrors.ReasonForError(err)
		w.object, w.err = nil, err
	default:
		changed = w.object == nil || o.GetUID() != w.object.GetUID() || o.GetResourceVersion() == "" ||
			o.GetResourceVersion() != w.object.GetResourceVersion()
		w.object, w.err = o, nil
	}
	holders := sets.List(w.holders)
	w.store.mu.Unlock()
	if first {
		close(w.ready)
	} else if changed && len(holders) > 0 {
		w.store.changed(holders)
	}
}

func older(o, than object) bool {
	c, err := resourceversion.CompareResourceVersion(o.GetResourceVersion(), than.GetResourceVersion())
	return err == nil && c < 0
}

// notFound names the resource in the singular, as upstream's kubelet has it in Events.
func (k Key) notFound() error { return apierrors.NewNotFound(v1.Resource(string(k.Kind)), k.Name) }

// fetch reads the object from etcd, not from the API server's cache.
func fetch(ctx context.Context, client kubernetes.Interface, key Key) (object, error) {
	o, err := Retry(PodUnknown, func() (object, error) {
		if key.Kind == Secret {
			return client.CoreV1().Secrets(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
		}
		return client.CoreV1().ConfigMaps(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	})
	if apierrors.IsNotFound(err) {
		return nil, key.notFound()
	} else if err != nil {
		return nil, fmt.Errorf("reading %s %s/%s: %w", key.Kind, key.Namespace, key.Name, err)
	}
	return o, nil
}

func startWatch(ctx context.Context, client kubernetes.Interface, key Key) (watch.Interface, error) {
	opts := metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, key.Name).String(),
		// From the state in the server's cache: it never expires, as the version of our object
		// could.
		ResourceVersion: "0",
	}
	if key.Kind == Secret {
		return client.CoreV1().Secrets(key.Namespace).Watch(ctx, opts)
	}
	return client.CoreV1().ConfigMaps(key.Namespace).Watch(ctx, opts)
}

func immutable(o object) bool {
	cm, _ := o.(*v1.ConfigMap)
	secret, _ := o.(*v1.Secret)
	return cm != nil && ptr.Deref(cm.Immutable, false) || secret != nil && ptr.Deref(secret.Immutable, false)
}

// Retry repeats a request for about a second while its error says that the API server is behind.
func Retry[T any](behind func(error) bool, request func() (T, error)) (answer T, err error) {
	backoff := wait.Backoff{Duration: 5 * time.Millisecond, Factor: 1.5, Jitter: 0.2, Steps: 13}
	err = retry.OnError(backoff, behind, func() error {
		answer, err = request()
		return err
	})
	return answer, err
}

// PodUnknown says that the API server does not know yet that the Pod is on this node: the node, the
// Node authorizer and the NodeRestriction admission each have a watch, and the node's may be ahead.
func PodUnknown(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !apierrors.IsNotFound(err) || !ok || status.ErrStatus.Details == nil {
		return apierrors.IsForbidden(err)
	}
	kind := status.ErrStatus.Details.Kind
	return kind == "pod" || kind == "pods"
}
