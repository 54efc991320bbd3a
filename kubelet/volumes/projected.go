package volumes

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"

	"flyball.dev/kubelet/volumes/internal/podcerts"
)

// projected shows several sources in one directory: ConfigMaps, Secrets, fields of the Pod, tokens
// of its service account, certificates.
type projected struct{ m *Manager }

func (projected) Name() string           { return "kubernetes.io/projected" }
func (projected) CanSupport(s Spec) bool { return s.Volume.Projected != nil }

// Publish reads all sources at the same time: the token is signed while the CA's ConfigMap is on
// its way. Later sources win where paths collide.
func (p projected) Publish(ctx context.Context, spec Spec, _ Volume, paths Paths) (Published, error) {
	sources := spec.Volume.Projected.Sources
	payloads, expiries, errs := make([]payload, len(sources)), make([]time.Time, len(sources)), make([]error, len(sources))
	var wg sync.WaitGroup
	for i := range sources {
		wg.Go(func() { payloads[i], expiries[i], errs[i] = p.m.projection(ctx, spec, i) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return Published{}, err
	}
	next := lo.Earliest(lo.Compact(expiries)...)
	return p.m.write(spec, paths.Target, lo.Assign(payloads...), next)
}

// projection returns the files of one source, and when they expire, zero for never.
func (m *Manager) projection(ctx context.Context, spec Spec, index int) (files payload, next time.Time, err error) {
	pod, s := spec.Pod, spec.Volume.Projected
	switch p := s.Sources[index]; {
	case p.ConfigMap != nil:
		files, err = m.configMapFiles(ctx, pod.Namespace, &v1.ConfigMapVolumeSource{
			LocalObjectReference: p.ConfigMap.LocalObjectReference, Items: p.ConfigMap.Items, Optional: p.ConfigMap.Optional,
			DefaultMode: s.DefaultMode, DefaultUser: s.DefaultUser,
		})
	case p.Secret != nil:
		files, err = m.secretFiles(ctx, pod.Namespace, &v1.SecretVolumeSource{
			SecretName: p.Secret.Name, Items: p.Secret.Items, Optional: p.Secret.Optional,
			DefaultMode: s.DefaultMode, DefaultUser: s.DefaultUser,
		})
	case p.DownwardAPI != nil:
		files, err = m.downwardFiles(pod, p.DownwardAPI.Items, s.DefaultMode, s.DefaultUser)
	case p.ServiceAccountToken != nil:
		var token string
		token, next, err = m.token(ctx, pod, p.ServiceAccountToken)
		files = payload{p.ServiceAccountToken.Path: guarded([]byte(token), spec, p.ServiceAccountToken.User)}
	case p.ClusterTrustBundle != nil:
		var anchors []byte
		anchors, err = m.bundles.Anchors(ctx, p.ClusterTrustBundle)
		files = payload{p.ClusterTrustBundle.Path: guarded(anchors, spec, p.ClusterTrustBundle.User)}
	case p.PodCertificate != nil && !m.cfg.NoFiles: // a key that nobody uses is not worth a signature
		return m.certificateFiles(ctx, spec, index)
	case p.PodCertificate == nil:
		err = errors.New("projected source is of a kind that is not supported yet")
	}
	return files, next, err
}

// certificateFiles are a key and its certificates, in one file or in two.
func (m *Manager) certificateFiles(ctx context.Context, spec Spec, index int) (payload, time.Time, error) {
	p := spec.Volume.Projected.Sources[index].PodCertificate
	source := podcerts.Source{Pod: spec.Pod.UID, Volume: spec.Volume.Name, Index: index}
	c, err := m.certificates.Credential(ctx, spec.Pod, source, p)
	if err != nil {
		return nil, time.Time{}, err
	}
	files := payload{}
	for path, data := range map[string][]byte{
		p.CredentialBundlePath: slices.Concat(c.Key, c.Chain), p.KeyPath: c.Key, p.CertificateChainPath: c.Chain,
	} {
		files[path] = guarded(data, spec, p.User)
	}
	delete(files, "") // the paths that are not set
	return files, c.Next, nil
}

// guarded is a file that only the user of the Pod's containers, or its fsGroup, may read, if either
// is known.
func guarded(data []byte, spec Spec, user *int64) volumeutil.FileProjection {
	s := spec.Volume.Projected
	out := file(data, nil, s.DefaultMode, user, s.DefaultUser)
	if out.FsUser == nil {
		// If all containers run as the same user, the file is that user's.
		out.FsUser = volumeutil.FsUserFrom(spec.Pod)
	}
	if out.FsUser != nil || FSGroup(spec.Pod) != nil {
		// The group gets access when ownership is set.
		out.Mode = 0o600
	}
	return out
}
