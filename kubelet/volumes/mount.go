package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/volumes/internal/bundles"
	"flyball.dev/kubelet/volumes/internal/objects"
)

// waitTimeout is how long volumes may wait before that is worth an Event.
const waitTimeout = 2 * time.Minute

// Mount makes every volume of the Pod that a container mounts ready, and returns them by name. It is
// idempotent and cheap when nothing changed: call it again whenever the Pod object changed (the
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
	queries, certificates := projections(pod)
	m.bundles.Hold(pod.UID, queries)
	m.certificates.Hold(pod.UID, certificates && !m.cfg.NoFiles)
	mounted, err := m.mountAll(ctx, pod)
	if err == nil {
		s.mounted.Store(true)
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
	if s.waiting.IsZero() {
		s.waiting = time.Now()
	}
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
	p := m.pluginFor(spec)
	if p == nil {
		if m.cfg.NoFiles {
			return Published{Mounted: Mounted{HostPath: filepath.Join(m.volumesDir(spec.Pod.UID), spec.Volume.Name)}}, nil
		}
		return Published{}, fmt.Errorf("volume kind %s is not supported yet", sourceOf(spec.Volume.VolumeSource))
	}
	begun := time.Now()
	var published Published
	var err error
	if staging, ok := p.(StagingPlugin); ok && !m.cfg.NoFiles {
		published, err = m.publish(ctx, staging, spec)
	} else {
		published, err = p.Publish(ctx, spec, Volume{}, Paths{Target: m.volumeDir(p.Name(), spec.target())})
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

// projections are the queries for ClusterTrustBundles in the Pod's projected volumes, and whether
// one of these has a certificate.
func projections(pod *v1.Pod) (queries []bundles.Query, certificates bool) {
	for _, v := range pod.Spec.Volumes {
		for _, s := range ptr.Deref(v.Projected, v1.ProjectedVolumeSource{}).Sources {
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
