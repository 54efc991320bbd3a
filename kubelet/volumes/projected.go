package volumes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"

	"flyball.dev/kubelet/volumes/internal/bundles"
	"flyball.dev/kubelet/volumes/internal/podcerts"
)

// projected shows several sources in one directory: ConfigMaps, Secrets, fields of the Pod, tokens
// of its service account, certificates.
type projected struct{ m *Manager }

func (projected) Name() string           { return "kubernetes.io/projected" }
func (projected) CanSupport(s Spec) bool { return s.Volume.Projected != nil }

func (p projected) Publish(ctx context.Context, spec Spec, _ Volume, paths Paths) (Published, error) {
	files, next, err := p.m.projectedFiles(ctx, spec.Pod, spec.Volume)
	if err != nil {
		return Published{}, err
	}
	return p.m.write(spec, paths.Target, inMemory, files, next)
}

// projectedFiles reads all sources at the same time: the token is signed while the CA's ConfigMap is
// on its way. Later sources win where paths collide.
func (m *Manager) projectedFiles(ctx context.Context, pod *v1.Pod, vol *v1.Volume) (payload, time.Time, error) {
	s := vol.Projected
	payloads := make([]payload, len(s.Sources))
	expiries := make([]time.Time, len(s.Sources))
	errs := make([]error, len(s.Sources))
	var wg sync.WaitGroup
	for i := range s.Sources {
		wg.Go(func() { payloads[i], expiries[i], errs[i] = m.projection(ctx, pod, vol, i) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, time.Time{}, err
	}
	files, next := payload{}, time.Time{}
	for i, p := range payloads {
		maps.Copy(files, p)
		if t := expiries[i]; !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	return files, next, nil
}

func (m *Manager) projection(ctx context.Context, pod *v1.Pod, vol *v1.Volume, index int) (payload, time.Time, error) {
	s, p := vol.Projected, vol.Projected.Sources[index]
	var files payload
	var err error
	switch {
	case p.ConfigMap != nil:
		it := items{p.ConfigMap.Items, s.DefaultMode, s.DefaultUser, deref(p.ConfigMap.Optional)}
		files, err = m.configMapFiles(ctx, pod.Namespace, p.ConfigMap.Name, it)
	case p.Secret != nil:
		it := items{p.Secret.Items, s.DefaultMode, s.DefaultUser, deref(p.Secret.Optional)}
		files, err = m.secretFiles(ctx, pod.Namespace, p.Secret.Name, it)
	case p.DownwardAPI != nil:
		files, err = m.downwardFiles(pod, p.DownwardAPI.Items, s.DefaultMode, s.DefaultUser)
	case p.ServiceAccountToken != nil:
		return m.tokenFiles(ctx, pod, s, p.ServiceAccountToken)
	case p.ClusterTrustBundle != nil:
		files, err = m.trustBundleFiles(ctx, pod, s, p.ClusterTrustBundle)
	case p.PodCertificate != nil:
		return m.certificateFiles(ctx, pod, vol, index)
	default:
		err = fmt.Errorf("projected source is of a kind that is not supported yet")
	}
	return files, time.Time{}, err
}

func (m *Manager) tokenFiles(
	ctx context.Context, pod *v1.Pod, s *v1.ProjectedVolumeSource, p *v1.ServiceAccountTokenProjection,
) (payload, time.Time, error) {
	token, next, err := m.token(ctx, pod, p)
	if err != nil {
		return nil, time.Time{}, err
	}
	return payload{p.Path: guarded([]byte(token), pod, s, p.User)}, next, nil
}

// trustBundleFiles are the certificates of ClusterTrustBundles, all in one file.
func (m *Manager) trustBundleFiles(
	ctx context.Context, pod *v1.Pod, s *v1.ProjectedVolumeSource, p *v1.ClusterTrustBundleProjection,
) (payload, error) {
	query, err := bundles.QueryOf(p)
	if err != nil {
		return nil, err
	}
	anchors, err := m.bundles.Anchors(ctx, query, deref(p.Optional))
	if err != nil {
		return nil, err
	}
	return payload{p.Path: guarded(anchors, pod, s, p.User)}, nil
}

// certificateFiles are a key and its certificates, in one file or in two.
func (m *Manager) certificateFiles(
	ctx context.Context, pod *v1.Pod, vol *v1.Volume, index int,
) (payload, time.Time, error) {
	s := vol.Projected
	p := s.Sources[index].PodCertificate
	if m.cfg.NoFiles { // a key that nobody uses is not worth a signature
		return nil, time.Time{}, nil
	}
	c, err := m.certificates.Credential(ctx, pod, podcerts.Source{Pod: pod.UID, Volume: vol.Name, Index: index}, p)
	if err != nil {
		return nil, time.Time{}, err
	}
	files := payload{}
	for path, data := range map[string][]byte{
		p.CredentialBundlePath: slices.Concat(c.Key, c.Chain), p.KeyPath: c.Key, p.CertificateChainPath: c.Chain,
	} {
		if path != "" {
			files[path] = guarded(data, pod, s, p.User)
		}
	}
	return files, c.Next, nil
}

// guarded is a file that only the user of the Pod's containers, or its fsGroup, may read, if either
// is known.
func guarded(data []byte, pod *v1.Pod, s *v1.ProjectedVolumeSource, user *int64) volumeutil.FileProjection {
	out := file(data, nil, s.DefaultMode, user, s.DefaultUser)
	if out.FsUser == nil {
		// If all containers run as the same user, the file is that user's.
		out.FsUser = volumeutil.FsUserFrom(pod)
	}
	if out.FsUser != nil || fsGroup(pod) != nil {
		// The group gets access when ownership is set.
		out.Mode = 0o600
	}
	return out
}
