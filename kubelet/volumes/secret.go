package volumes

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// secret shows the keys of a Secret as files.
type secret struct{ m *Manager }

func (secret) Name() string           { return "kubernetes.io/secret" }
func (secret) CanSupport(s Spec) bool { return s.Volume.Secret != nil }

func (p secret) Publish(ctx context.Context, spec Spec, _ Volume, paths Paths) (Published, error) {
	s := spec.Volume.Secret
	it := items{s.Items, s.DefaultMode, s.DefaultUser, deref(s.Optional)}
	files, err := p.m.secretFiles(ctx, spec.Pod.Namespace, s.SecretName, it)
	if err != nil {
		return Published{}, err
	}
	return p.m.write(spec, paths.Target, inMemory, files, time.Time{})
}

func (m *Manager) secretFiles(ctx context.Context, namespace, name string, it items) (payload, error) {
	secret, err := m.objects.Secret(ctx, namespace, name)
	if apierrors.IsNotFound(err) && it.optional {
		secret = &v1.Secret{}
	} else if err != nil {
		return nil, err
	}
	return it.project(secret.Data, "references non-existent secret key: %s")
}
