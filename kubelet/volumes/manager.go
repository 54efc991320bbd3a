package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/workqueue"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/kubelet/token"

	"flyball.dev/kubelet/volumes/internal/bundles"
	"flyball.dev/kubelet/volumes/internal/objects"
	"flyball.dev/kubelet/volumes/internal/podcerts"
)

// Manager mounts, refreshes and unmounts the volumes of this node's Pods.
type Manager struct {
	cfg     Config
	metrics *metrics
	pods    string // RootDir/pods, links resolved: the kernel's mount table has no links
	objects *objects.Store
	tokens  tokens
	// bundles and certificates are sources of projected volumes.
	bundles      *bundles.Store
	certificates *podcerts.Store
	// queue has the UIDs of Pods whose contents may be out of date.
	queue workqueue.TypedRateLimitingInterface[types.UID]

	mu     sync.Mutex
	states map[types.UID]*state
}

// state is what is remembered of one mounted Pod, only to keep it fresh.
type state struct {
	mu  sync.Mutex
	pod *v1.Pod
	// mounted says that Mount has succeeded once, so that there is something to refresh.
	mounted bool
	gone    bool
}

// New returns a Manager. It watches nothing until the first Mount and refreshes
// nothing until Run.
func New(cfg Config) *Manager {
	pods := filepath.Join(cfg.RootDir, "pods")
	if resolved, err := filepath.EvalSymlinks(cfg.RootDir); err == nil {
		pods = filepath.Join(resolved, "pods")
	}
	m := &Manager{
		cfg: cfg, metrics: newMetrics(),
		pods:   pods,
		queue:  workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](time.Second, 2*time.Minute)),
		states: map[types.UID]*state{},
	}
	if !cfg.NoFiles {
		m.tokens = token.NewManager(patientClient{cfg.Client})
	} else {
		m.tokens = unkept{patientClient{cfg.Client}}
	}
	m.objects = objects.New(cfg.Client, m.objectChanged)
	m.bundles = bundles.New(cfg.Client, m.objectChanged)
	m.certificates = podcerts.New(podcerts.Config{Client: cfg.Client, NodeName: cfg.NodeName, Changed: m.objectChanged, Event: m.event})
	return m
}

// Run keeps contents fresh until ctx ends, and then stops every watch.
func (m *Manager) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				uid, shutdown := m.queue.Get()
				if shutdown {
					return
				}
				m.refresh(ctx, uid)
				m.queue.Done(uid)
			}
		})
	}
	<-ctx.Done()
	m.queue.ShutDown()
	wg.Wait()
	m.objects.Close()
	m.bundles.Close()
	m.certificates.Close()
	return nil
}

func (m *Manager) event(pod *v1.Pod, eventtype, reason, message string) {
	if m.cfg.Event != nil {
		m.cfg.Event(pod, eventtype, reason, message)
	}
}

// objectChanged is called by the store with the Pods that refer to an object.
func (m *Manager) objectChanged(uids []types.UID) {
	for _, uid := range uids {
		m.queue.Add(uid)
		if m.cfg.Changed != nil {
			m.cfg.Changed(uid)
		}
	}
}

// refresh brings the contents of a mounted Pod up to date.
func (m *Manager) refresh(ctx context.Context, uid types.UID) {
	m.mu.Lock()
	s := m.states[uid]
	m.mu.Unlock()
	if s == nil {
		m.queue.Forget(uid)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	if !s.mounted {
		// What has changed came while Mount was looking elsewhere. It is to look again.
		m.queue.Forget(uid)
		if m.cfg.Changed != nil {
			m.cfg.Changed(uid)
		}
		return
	}
	_, err := m.mountAll(ctx, s.pod)
	switch {
	case err == nil:
		m.queue.Forget(uid)
	case ctx.Err() == nil:
		m.event(s.pod, v1.EventTypeWarning, ReasonFailedMount, err.Error())
		m.queue.AddRateLimited(uid)
	}
}

// Mount makes every volume of the Pod that a container mounts ready, and returns
// them by name. It is idempotent and cheap when nothing changed: call it again
// whenever the Pod object changed (the downward API shows labels and
// annotations). From the first call until Unmount the ConfigMaps, Secrets,
// ClusterTrustBundles and PodCertificateRequests that concern the Pod are watched. Errors are *Error, joined if several
// volumes failed.
func (m *Manager) Mount(ctx context.Context, pod *v1.Pod) (map[string]Mounted, error) {
	m.mu.Lock()
	s := m.states[pod.UID]
	if s == nil {
		s = &state{}
		m.states[pod.UID] = s
	}
	m.mu.Unlock()

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil, fmt.Errorf("mounting volumes: Pod %s is being unmounted", pod.UID)
	}
	s.pod = pod
	// All objects are asked for at once; each volume then waits for its own.
	m.objects.Hold(pod.UID, references(pod))
	queries, certificates := projections(pod)
	m.bundles.Hold(pod.UID, queries)
	m.certificates.Hold(pod.UID, certificates)
	m.count(pod, s.mounted)
	mounted, err := m.mountAll(ctx, pod)
	s.mounted = s.mounted || err == nil
	m.count(pod, s.mounted)
	return mounted, err
}

// mountAll is called with the Pod's lock held.
func (m *Manager) mountAll(ctx context.Context, pod *v1.Pod) (map[string]Mounted, error) {
	if !m.cfg.NoFiles {
		if err := os.MkdirAll(m.volumesDir(pod.UID), 0o750); err != nil {
			return nil, fmt.Errorf("making the Pod's directory: %w", err)
		}
	}
	used := usedVolumes(pod)
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		errs    []error
		next    time.Time
		mounted = map[string]Mounted{}
	)
	for i := range pod.Spec.Volumes {
		vol := &pod.Spec.Volumes[i]
		if !used.Has(vol.Name) {
			continue
		}
		wg.Go(func() {
			r, err := m.mountOne(ctx, pod, vol)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, mountError(vol.Name, err))
				return
			}
			mounted[vol.Name] = r.Mounted
			if !r.next.IsZero() && (next.IsZero() || r.next.Before(next)) {
				next = r.next
			}
		})
	}
	wg.Wait()
	if len(errs) > 0 {
		slices.SortFunc(errs, func(a, b error) int { return compareText(a.Error(), b.Error()) })
		return nil, errors.Join(errs...)
	}
	if !next.IsZero() {
		m.queue.AddAfter(pod.UID, time.Until(next))
	}
	return mounted, nil
}

// result of mounting one volume: next is when its contents want to be looked at
// again though no object changed, zero for never.
type result struct {
	Mounted
	next time.Time
}

func (m *Manager) mountOne(ctx context.Context, pod *v1.Pod, vol *v1.Volume) (result, error) {
	if m.cfg.NoFiles {
		return m.pretend(ctx, pod, vol)
	}
	v, err := m.volumeFor(pod, vol)
	if err != nil {
		return result{}, err
	}
	begun := time.Now()
	r, err := v.mount(ctx, filepath.Join(m.volumesDir(pod.UID), v.directory(), vol.Name))
	m.metrics.took(v, err, time.Since(begun))
	return r, err
}

// ConfigMap implements Source.
func (m *Manager) ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error) {
	return m.objects.ConfigMap(ctx, namespace, name)
}

// Secret implements Source.
func (m *Manager) Secret(ctx context.Context, namespace, name string) (*v1.Secret, error) {
	return m.objects.Secret(ctx, namespace, name)
}

// references are all ConfigMaps and Secrets that the Pod names, also those in its
// environment and for pulling its images. They are what the Node authorizer
// lets this node read.
func references(pod *v1.Pod) []objects.Key {
	var keys []objects.Key
	podutil.VisitPodConfigmapNames(pod, func(name string) bool {
		keys = append(keys, objects.Key{Kind: objects.ConfigMap, Namespace: pod.Namespace, Name: name})
		return true
	})
	podutil.VisitPodSecretNames(pod, func(name string) bool {
		keys = append(keys, objects.Key{Kind: objects.Secret, Namespace: pod.Namespace, Name: name})
		return true
	})
	return slices.DeleteFunc(keys, func(k objects.Key) bool { return k.Name == "" })
}

// projections are what the Pod's projected volumes want of ClusterTrustBundles,
// and whether they want certificates.
func projections(pod *v1.Pod) (queries []bundles.Query, certificates bool) {
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Projected == nil {
			continue
		}
		for _, s := range pod.Spec.Volumes[i].Projected.Sources {
			certificates = certificates || s.PodCertificate != nil
			if s.ClusterTrustBundle == nil {
				continue
			}
			if q, err := bundles.QueryOf(s.ClusterTrustBundle); err == nil { // else mounting the volume says so
				queries = append(queries, q)
			}
		}
	}
	return queries, certificates
}

// usedVolumes are those that a container mounts or reads. A volume that nobody
// uses is not mounted, so that it cannot keep the Pod from running.
func usedVolumes(pod *v1.Pod) sets.Set[string] {
	used := sets.New[string]()
	podutil.VisitContainers(&pod.Spec, podutil.AllContainers, func(c *v1.Container, _ podutil.ContainerType) bool {
		for _, mount := range c.VolumeMounts {
			used.Insert(mount.Name)
		}
		for _, device := range c.VolumeDevices {
			used.Insert(device.Name)
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.FileKeyRef != nil {
				used.Insert(e.ValueFrom.FileKeyRef.VolumeName)
			}
		}
		return true
	})
	return used
}

func (m *Manager) podDir(uid types.UID) string     { return filepath.Join(m.pods, string(uid)) }
func (m *Manager) volumesDir(uid types.UID) string { return filepath.Join(m.podDir(uid), "volumes") }
