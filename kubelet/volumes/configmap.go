package volumes

import (
	"cmp"
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	volumeconfigmap "k8s.io/kubernetes/pkg/volume/configmap"
	"k8s.io/utils/ptr"
)

// configMap shows the keys of a ConfigMap as files.
type configMap struct{ m *Manager }

func (configMap) Name() string           { return "kubernetes.io/configmap" }
func (configMap) CanSupport(s Spec) bool { return s.Volume.ConfigMap != nil }

func (p configMap) Publish(ctx context.Context, spec Spec, _ Volume, paths Paths) (Published, error) {
	files, err := p.m.configMapFiles(ctx, spec.Pod.Namespace, spec.Volume.ConfigMap)
	if err != nil {
		return Published{}, err
	}
	return p.m.write(spec, paths.Target, files, time.Time{})
}

func (m *Manager) configMapFiles(ctx context.Context, namespace string, s *v1.ConfigMapVolumeSource) (payload, error) {
	cm, err := m.objects.ConfigMap(ctx, namespace, s.Name)
	optional := ptr.Deref(s.Optional, false)
	if apierrors.IsNotFound(err) && optional {
		cm = &v1.ConfigMap{}
	} else if err != nil {
		return nil, err
	}
	mode := cmp.Or(s.DefaultMode, new(v1.ConfigMapVolumeSourceDefaultMode))
	return volumeconfigmap.MakePayload(s.Items, cm, mode, s.DefaultUser, optional)
}
