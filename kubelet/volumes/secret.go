package volumes

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

func (m *Manager) secret(pod *v1.Pod, vol *v1.Volume) volume {
	s := vol.Secret
	return content{name: vol.Name, pod: pod, kind: "secret", memory: true, collect: func(ctx context.Context) (payload, time.Time, error) {
		files, err := m.secretFiles(ctx, pod.Namespace, s.SecretName, items{s.Items, s.DefaultMode, s.DefaultUser, deref(s.Optional)})
		return files, time.Time{}, err
	}}
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
