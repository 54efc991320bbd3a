package volumes

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/events"

	"flyball.dev/kubelet/volumes/internal/bundles"
	"flyball.dev/kubelet/volumes/internal/claims"
	"flyball.dev/kubelet/volumes/internal/objects"
	"flyball.dev/kubelet/volumes/internal/podcerts"
	"flyball.dev/kubelet/volumes/plan"
)

// Manager mounts, refreshes and unmounts the volumes of this node's Pods.
type Manager struct {
	cfg     Config
	plugins []Plugin
	seconds *prometheus.HistogramVec
	pods    string // RootDir/pods, links resolved: the kernel's mount table has no links
	records records
	objects *objects.Store
	// bundles and certificates are sources of projected volumes.
	bundles      *bundles.Store
	certificates *podcerts.Store
	claims       *claims.Store
	// refreshing has the UIDs of Pods whose contents may be out of date, unstaging the volumes that
	// may be staged although no Pod uses them.
	refreshing workqueue.TypedRateLimitingInterface[types.UID]
	unstaging  workqueue.TypedRateLimitingInterface[v1.UniqueVolumeName]

	mu      sync.Mutex
	states  map[types.UID]*podState
	volumes map[v1.UniqueVolumeName]*nodeVolume
	tokens  map[tokenKey]*authenticationv1.TokenRequest
	stats   map[plan.Target]measured

	measuring sync.Mutex
}

// podState is what is remembered of one mounted Pod, only to keep it fresh.
type podState struct {
	// pod as last given to Mount.
	pod atomic.Pointer[v1.Pod]
	// mounted are its volumes, nil until Mount has succeeded once: nothing is refreshed before.
	mounted atomic.Pointer[map[string]Mounted]

	// mu is held while the Pod's volumes are mounted or unmounted.
	mu   sync.Mutex
	gone bool
	// waiting is when the Pod's volumes began to wait.
	waiting time.Time
}

// New returns a Manager that knows which volumes an earlier process has left on the node. It
// watches nothing until the first Mount and refreshes nothing until Run.
func New(cfg Config) (*Manager, error) {
	root := cfg.RootDir
	if resolved, err := filepath.EvalSymlinks(root); err == nil {
		root = resolved
	}
	m := &Manager{
		cfg: cfg, seconds: newSeconds(), pods: filepath.Join(root, "pods"), records: records{filepath.Join(root, "volumes")},
		refreshing: newQueue[types.UID](), unstaging: newQueue[v1.UniqueVolumeName](),
		states: map[types.UID]*podState{}, volumes: map[v1.UniqueVolumeName]*nodeVolume{},
		tokens: map[tokenKey]*authenticationv1.TokenRequest{}, stats: map[plan.Target]measured{},
	}
	m.plugins = append([]Plugin{
		emptyDir{m}, hostPath{m}, newLocal(m), configMap{m}, secret{m}, downwardAPI{m}, projected{m}, image{},
	}, cfg.Plugins...)
	m.objects = objects.New(cfg.Client, m.podsChanged)
	m.bundles = bundles.New(cfg.Client, m.podsChanged)
	m.certificates = podcerts.New(podcerts.Config{
		Client: cfg.Client, NodeName: cfg.NodeName, Changed: m.podsChanged, Event: cfg.Event,
	})
	m.claims = claims.New(cfg.Client, m.refreshing.AddAfter)
	if cfg.NoFiles {
		return m, nil
	}
	return m, m.reconstruct()
}

func newQueue[T comparable]() workqueue.TypedRateLimitingInterface[T] {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[T](time.Second, 2*time.Minute)
	return workqueue.NewTypedRateLimitingQueue(limiter)
}

// Run keeps contents fresh and unstages volumes that no Pod uses until ctx ends. Then it stops
// every watch.
func (m *Manager) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() { work(ctx, m.refreshing, m.refresh) })
		workers.Go(func() { work(ctx, m.unstaging, m.unstageIdle) })
	}
	<-ctx.Done()
	m.refreshing.ShutDown()
	m.unstaging.ShutDown()
	workers.Wait()
	m.objects.Close()
	m.bundles.Close()
	m.certificates.Close()
	return nil
}

// work off a queue. Items whose work failed are tried again.
func work[T comparable](
	ctx context.Context, queue workqueue.TypedRateLimitingInterface[T], do func(context.Context, T) error,
) {
	for item, shutdown := queue.Get(); !shutdown; item, shutdown = queue.Get() {
		if err := do(ctx, item); err == nil {
			queue.Forget(item)
		} else if ctx.Err() == nil {
			queue.AddRateLimited(item)
		}
		queue.Done(item)
	}
}

// podsChanged is called with the Pods that refer to an object which changed.
func (m *Manager) podsChanged(uids []types.UID) {
	for _, uid := range uids {
		m.refreshing.Add(uid)
		m.cfg.Changed(uid)
	}
}

// refresh brings the contents of a mounted Pod up to date.
func (m *Manager) refresh(ctx context.Context, uid types.UID) error {
	m.mu.Lock()
	s := m.states[uid]
	m.mu.Unlock()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil
	} else if s.mounted.Load() == nil {
		// The object has changed while Mount was waiting for another one. Mount has to be called
		// again.
		m.cfg.Changed(uid)
		return nil
	}
	mounted, err := m.mountAll(ctx, s.pod.Load())
	if err == nil {
		s.mounted.Store(&mounted)
	} else if ctx.Err() == nil {
		m.cfg.Event(s.pod.Load(), v1.EventTypeWarning, events.FailedMountVolume, err.Error())
	}
	return err
}

// unstageIdle unstages a volume unless a Pod uses it.
func (m *Manager) unstageIdle(ctx context.Context, name v1.UniqueVolumeName) error {
	m.mu.Lock()
	v := m.volumes[name]
	m.mu.Unlock()
	if v == nil {
		return nil
	}
	err := m.release(ctx, v, plan.Target{})
	if err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "Cannot unstage a volume that no Pod uses, trying again", "volume", name)
	}
	return err
}

// ConfigMap implements Source.
func (m *Manager) ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error) {
	return m.objects.ConfigMap(ctx, namespace, name)
}

// Secret implements Source.
func (m *Manager) Secret(ctx context.Context, namespace, name string) (*v1.Secret, error) {
	return m.objects.Secret(ctx, namespace, name)
}

func (m *Manager) podDir(uid types.UID) string     { return filepath.Join(m.pods, string(uid)) }
func (m *Manager) volumesDir(uid types.UID) string { return filepath.Join(m.podDir(uid), "volumes") }

func (m *Manager) volumeDir(plugin string, uid types.UID, name string) string {
	return filepath.Join(m.volumesDir(uid), dirOf(plugin), name)
}

// dirOf is what the directory of a plugin in that of a Pod is called.
func dirOf(plugin string) string { return strings.ReplaceAll(plugin, "/", "~") }
