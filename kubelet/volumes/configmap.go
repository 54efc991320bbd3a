package volumes

import (
	"context"
	"fmt"
	"maps"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// configMap shows the keys of a ConfigMap as files.
type configMap struct{ m *Manager }

func (configMap) Name() string           { return "kubernetes.io/configmap" }
func (configMap) CanSupport(s Spec) bool { return s.Volume.ConfigMap != nil }

func (p configMap) Publish(ctx context.Context, spec Spec, _ Volume, paths Paths) (Published, error) {
	s := spec.Volume.ConfigMap
	it := items{s.Items, s.DefaultMode, s.DefaultUser, deref(s.Optional)}
	files, err := p.m.configMapFiles(ctx, spec.Pod.Namespace, s.Name, it)
	if err != nil {
		return Published{}, err
	}
	return p.m.write(spec, paths.Target, onDisk, files, time.Time{})
}

func (m *Manager) configMapFiles(ctx context.Context, namespace, name string, it items) (payload, error) {
	cm, err := m.objects.ConfigMap(ctx, namespace, name)
	if apierrors.IsNotFound(err) && it.optional {
		cm = &v1.ConfigMap{}
	} else if err != nil {
		return nil, err
	}
	data := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	maps.Copy(data, cm.BinaryData)
	return it.project(data, "configmap references non-existent config key: %s")
}

// items say which keys of an object become which files.
type items struct {
	paths    []v1.KeyToPath
	mode     *int32
	user     *int64
	optional bool
}

// project makes files of all keys, or of those that are listed. missing is the message about a
// listed key that does not exist.
func (it items) project(data map[string][]byte, missing string) (payload, error) {
	files := payload{}
	if len(it.paths) == 0 {
		for k, v := range data {
			files[k] = file(v, nil, it.mode, nil, it.user)
		}
		return files, nil
	}
	for _, p := range it.paths {
		v, ok := data[p.Key]
		if ok {
			files[p.Path] = file(v, p.Mode, it.mode, p.User, it.user)
		} else if !it.optional {
			return nil, fmt.Errorf(missing, p.Key)
		}
	}
	return files, nil
}

func deref(b *bool) bool { return b != nil && *b }
