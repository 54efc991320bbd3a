package volumes

import (
	"cmp"
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	volumesecret "k8s.io/kubernetes/pkg/volume/secret"
	"k8s.io/utils/ptr"
)

// secret shows the keys of a Secret as files.
type secret struct{ m *Manager }

func (secret) Name() string           { return "kubernetes.io/secret" }
func (secret) CanSupport(s Spec) bool { return s.Volume.Secret != nil }

func (p secret) Publish(ctx context.Context, spec Spec, _ Volume, paths Paths) (Published, error) {
	files, err := p.m.secretFiles(ctx, spec.Pod.Namespace, spec.Volume.Secret)
	if err != nil {
		return Published{}, err
	}
	return p.m.write(spec, paths.Target, files, time.Time{})
}

func (m *Manager) secretFiles(ctx context.Context, namespace string, s *v1.SecretVolumeSource) (payload, error) {
	secret, err := m.objects.Secret(ctx, namespace, s.SecretName)
	optional := ptr.Deref(s.Optional, false)
	if apierrors.IsNotFound(err) && optional {
		secret = &v1.Secret{}
	} else if err != nil {
		return nil, err
	}
	mode := cmp.Or(s.DefaultMode, new(v1.SecretVolumeSourceDefaultMode))
	return volumesecret.MakePayload(s.Items, secret, mode, s.DefaultUser, optional)
}
