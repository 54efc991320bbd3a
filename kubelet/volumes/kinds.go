package volumes

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// volume is one kind of volume. A new kind is one more implementation and one
// more line in volumeFor.
type volume interface {
	// directory is the name of the kind's directory, kubernetes.io~KIND.
	directory() string
	// mount makes the volume ready at dir. It is idempotent, leaves alone what is
	// already right, and may wait for the API server until ctx ends. Unmounting
	// needs no counterpart: all there is lies below the Pod's directory.
	mount(ctx context.Context, dir string) (result, error)
}

func (m *Manager) volumeFor(pod *v1.Pod, vol *v1.Volume) (volume, error) {
	switch s := vol.VolumeSource; {
	case s.EmptyDir != nil:
		allocatable := m.allocatable()
		return emptyDir{pod: pod, source: s.EmptyDir, memory: allocatable.Memory().Value()}, nil
	case s.HostPath != nil:
		return hostPath{s.HostPath}, nil
	case s.ConfigMap != nil:
		return m.configMap(pod, vol), nil
	case s.Secret != nil:
		return m.secret(pod, vol), nil
	case s.DownwardAPI != nil:
		return m.downward(pod, vol), nil
	case s.Projected != nil:
		return m.projected(pod, vol), nil
	case s.Image != nil:
		return image{}, nil
	}
	return nil, fmt.Errorf("volume kind %s is not supported yet", kindOf(vol.VolumeSource))
}

// kindOf is the name of the field that is set, as users write it.
func kindOf(source v1.VolumeSource) string {
	v := reflect.ValueOf(source)
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Pointer && !f.IsNil() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			return name
		}
	}
	return "(none)"
}

func (m *Manager) allocatable() v1.ResourceList {
	if m.cfg.Allocatable == nil {
		return nil
	}
	return m.cfg.Allocatable()
}

func compareText(a, b string) int { return strings.Compare(a, b) }

func deref(b *bool) bool { return b != nil && *b }
