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

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

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
	m.mu.Unlock()

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil, fmt.Errorf("mounting volumes: Pod %s is being unmounted", pod.UID)
	}
	s.pod = pod
	// All objects are requested at once; each volume then waits for its own.
	m.objects.Hold(pod.UID, references(pod))
	queries, certificates := projections(pod)
	m.bundles.Hold(pod.UID, queries)
	m.certificates.Hold(pod.UID, certificates && !m.cfg.NoFiles)
	m.count(pod, s.mounted)
	mounted, err := m.mountAll(ctx, pod)
	s.mounted = s.mounted || err == nil
	m.count(pod, s.mounted)
	return mounted, s.waited(err)
}

// waited marks the error of a Pod whose volumes only wait, and have not done so for long.
func (s *podState) waited(err error) error {
	var e *Error
	if !errors.As(err, &e) || !e.Waiting {
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
	used := usedVolumes(pod)
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		errs    []*Error
		next    time.Time
		mounted = map[string]Mounted{}
	)
	for i := range pod.Spec.Volumes {
		vol := &pod.Spec.Volumes[i]
		if !used.Has(vol.Name) {
			continue
		}
		wg.Go(func() {
			p, err := m.mountOne(ctx, Spec{Pod: pod, Volume: vol})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, mountError(vol.Name, err))
				return
			}
			mounted[vol.Name] = p.Mounted
			if !p.Next.IsZero() && (next.IsZero() || p.Next.Before(next)) {
				next = p.Next
			}
		})
	}
	wg.Wait()
	if len(errs) > 0 {
		return nil, join(errs)
	}
	if !next.IsZero() {
		m.refreshing.AddAfter(pod.UID, time.Until(next))
	}
	return mounted, nil
}

// join leaves out volumes that only wait if others have failed.
func join(errs []*Error) error {
	if slices.ContainsFunc(errs, func(e *Error) bool { return !e.Waiting }) {
		errs = slices.DeleteFunc(errs, func(e *Error) bool { return e.Waiting })
	}
	slices.SortFunc(errs, func(a, b *Error) int { return strings.Compare(a.Message, b.Message) })
	var all []error
	for _, e := range errs {
		all = append(all, e)
	}
	return errors.Join(all...)
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
	v, err := m.want(ctx, p, spec)
	if err == nil {
		published, err = m.publish(ctx, v, p, spec)
	}
	m.metrics.took(p.Name(), "volume_mount", err, time.Since(begun))
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

// usedVolumes are those that a container mounts or reads. A volume that no container uses is not
// mounted, so that it cannot keep the Pod from running.
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
