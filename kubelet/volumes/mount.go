package volumes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/samber/lo"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"flyball.dev/internal/mounts"
	"flyball.dev/kubelet/volumes/internal/bundles"
	"flyball.dev/kubelet/volumes/internal/objects"
	"flyball.dev/kubelet/volumes/plan"
)

// waitTimeout is how long volumes may wait before that is worth an Event.
const waitTimeout = 2 * time.Minute

// Mount makes every volume of the Pod that a container mounts ready, and returns them by name. It
// is idempotent and cheap when nothing changed: call it again whenever the Pod object changed (the
// downward API shows labels and annotations). From the first call until Unmount the ConfigMaps,
// Secrets, ClusterTrustBundles and PodCertificateRequests that concern the Pod are watched. Errors
// are *Error, joined if several volumes failed.
func (m *Manager) Mount(ctx context.Context, pod *v1.Pod) (map[string]Mounted, error) {
	m.mu.Lock()
	s := m.states[pod.UID]
	if s == nil {
		s = &podState{}
		m.states[pod.UID] = s
	}
	s.pod.Store(pod)
	m.mu.Unlock()

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil, fmt.Errorf("mounting volumes: Pod %s is being unmounted", pod.UID)
	}
	// All objects are requested at once; each volume then waits for its own.
	m.objects.Hold(pod.UID, references(pod))
	sources, certificates := projections(pod)
	m.bundles.Hold(pod.UID, sources)
	m.certificates.Hold(pod.UID, certificates && !m.cfg.NoFiles)
	mounted, err := m.mountAll(ctx, pod)
	if err == nil {
		s.mounted.Store(&mounted)
	}
	return mounted, s.waited(err)
}

// waited marks the error of a Pod whose volumes only wait, and have not done so for long.
func (s *podState) waited(err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok || !e.Waiting {
		s.waiting = time.Time{}
		return err
	}
	s.waiting = cmp.Or(s.waiting, time.Now())
	e.Waiting = time.Since(s.waiting) < waitTimeout
	return err
}

// mountAll is called with the Pod's lock held.
func (m *Manager) mountAll(ctx context.Context, pod *v1.Pod) (map[string]Mounted, error) {
	if !m.cfg.NoFiles {
		if err := os.MkdirAll(m.volumesDir(pod.UID), 0o750); err != nil {
			return nil, fmt.Errorf("making the Pod's directory: %w", err)
		}
	}
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		errs    []*Error
		next    []time.Time
		mounted = map[string]Mounted{}
	)
	for _, spec := range specsOf(pod) {
		wg.Go(func() {
			p, err := m.mountOne(ctx, spec)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, mountError(spec.Volume.Name, err))
				return
			}
			mounted[spec.Volume.Name] = p.Mounted
			next = append(next, p.Next)
		})
	}
	wg.Wait()
	if len(errs) > 0 {
		return nil, join(errs)
	}
	if next = lo.Compact(next); len(next) > 0 {
		m.refreshing.AddAfter(pod.UID, time.Until(lo.Earliest(next...)))
	}
	return mounted, nil
}

// join leaves out volumes that only wait if others have failed.
func join(errs []*Error) error {
	if slices.ContainsFunc(errs, func(e *Error) bool { return !e.Waiting }) {
		errs = slices.DeleteFunc(errs, func(e *Error) bool { return e.Waiting })
	}
	slices.SortFunc(errs, func(a, b *Error) int { return strings.Compare(a.Message, b.Message) })
	return errors.Join(lo.Map(errs, func(e *Error, _ int) error { return e })...)
}

func (m *Manager) mountOne(ctx context.Context, spec Spec) (Published, error) {
	spec, err := m.resolve(ctx, spec)
	if err != nil {
		return Published{}, err
	}
	p := m.pluginFor(spec)
	if p == nil {
		if m.cfg.NoFiles {
			return Published{Mounted: Mounted{HostPath: filepath.Join(m.volumesDir(spec.Pod.UID), spec.Volume.Name)}}, nil
		}
		return Published{}, unsupported(spec)
	}
	begun := time.Now()
	var published Published
	if staging, ok := p.(StagingPlugin); ok && !m.cfg.NoFiles {
		published, err = m.publish(ctx, staging, spec)
	} else {
		published, err = p.Publish(ctx, spec, Volume{}, Paths{Target: m.volumeDir(p.Name(), spec.Pod.UID, spec.name())})
	}
	m.measure(p.Name(), "volume_mount", begun, err)
	return published, err
}

// references are all ConfigMaps and Secrets that the Pod names, also those in its environment and
// for pulling its images. They are what the Node authorizer lets this node read.
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

// projections are the ClusterTrustBundles in the Pod's projected volumes, and whether one of these
// has a certificate.
func projections(pod *v1.Pod) (sources []*bundles.Source, certificates bool) {
	for _, v := range pod.Spec.Volumes {
		for _, s := range ptr.Deref(v.Projected, v1.ProjectedVolumeSource{}).Sources {
			certificates = certificates || s.PodCertificate != nil
			if s.ClusterTrustBundle != nil {
				sources = append(sources, s.ClusterTrustBundle)
			}
		}
	}
	return sources, certificates
}

// Unmount unpublishes every volume of the Pod, removes every mount and directory of it and forgets
// it. It is idempotent, and works for Pods that were mounted by an earlier process. Call it when no
// container of the Pod runs any more.
func (m *Manager) Unmount(ctx context.Context, uid types.UID) error {
	// One name, and no way out of the directory of all Pods: everything below is deleted.
	if name := string(uid); !filepath.IsLocal(name) || name == "." || filepath.Base(name) != name {
		return fmt.Errorf("unmounting volumes: %q is not the UID of a Pod", uid)
	}
	m.mu.Lock()
	s := m.states[uid]
	m.mu.Unlock()
	if s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.gone = true
	}
	m.objects.Hold(uid, nil)
	m.bundles.Hold(uid, nil)
	m.certificates.Hold(uid, false)
	m.claims.Forget(uid)
	var errs []error
	for t, v := range m.targets() {
		if t.Pod == uid {
			m.unwant(v, t)
			errs = append(errs, m.release(ctx, v, t))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if !m.cfg.NoFiles {
		if err := mounts.RemoveAll(m.podDir(uid)); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.states, uid)
	maps.DeleteFunc(m.tokens, func(k tokenKey, _ *authenticationv1.TokenRequest) bool { return k.pod == uid })
	maps.DeleteFunc(m.stats, func(t plan.Target, _ measured) bool { return t.Pod == uid })
	return nil
}

// targets are the recorded volumes of all Pods.
func (m *Manager) targets() map[plan.Target]*nodeVolume {
	m.mu.Lock()
	defer m.mu.Unlock()
	targets := map[plan.Target]*nodeVolume{}
	for _, v := range m.volumes {
		for _, t := range v.state.Targets() {
			targets[t] = v
		}
	}
	return targets
}

// ListPods returns the UIDs of all Pods that have a directory or a recorded volume, for finding
// orphans.
func (m *Manager) ListPods() ([]types.UID, error) {
	entries, err := os.ReadDir(m.pods)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing directories of Pods: %w", err)
	}
	uids := sets.New[types.UID]()
	for _, e := range entries {
		if e.IsDir() {
			uids.Insert(types.UID(e.Name()))
		}
	}
	for t := range m.targets() {
		uids.Insert(t.Pod)
	}
	return sets.List(uids), nil
}
