package volumes

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/kubernetes/pkg/api/v1/resource"
	"k8s.io/kubernetes/pkg/fieldpath"
)

// downwardAPI shows fields of the Pod as files.
type downwardAPI struct{ m *Manager }

func (downwardAPI) Name() string           { return "kubernetes.io/downward-api" }
func (downwardAPI) CanSupport(s Spec) bool { return s.Volume.DownwardAPI != nil }

func (p downwardAPI) Publish(_ context.Context, spec Spec, _ Volume, paths Paths) (Published, error) {
	s := spec.Volume.DownwardAPI
	files, err := p.m.downwardFiles(spec.Pod, s.Items, s.DefaultMode, s.DefaultUser)
	if err != nil {
		return Published{}, err
	}
	return p.m.write(spec, paths.Target, files, time.Time{})
}

func (m *Manager) downwardFiles(
	pod *v1.Pod, items []v1.DownwardAPIVolumeFile, mode *int32, user *int64,
) (payload, error) {
	files := payload{}
	var errs []error
	for _, it := range items {
		var value string
		var err error
		switch {
		case it.FieldRef != nil:
			value, err = fieldpath.ExtractFieldPathAsString(pod, it.FieldRef.FieldPath)
		case it.ResourceFieldRef != nil:
			value, err = ResourceValue(pod, nil, it.ResourceFieldRef, m.cfg.Allocatable())
		}
		errs = append(errs, err)
		files[filepath.Clean(it.Path)] = file([]byte(value), it.Mode, mode, it.User, user)
	}
	return files, errors.Join(errs...)
}

// ResourceValue is the value of a request or limit for the downward API. Without a container name
// in the selector it is that of c. A limit that is not set is that of the whole Pod, else what the
// node can allocate.
func ResourceValue(
	pod *v1.Pod, c *v1.Container, selector *v1.ResourceFieldSelector, allocatable v1.ResourceList,
) (string, error) {
	available := allocatable.DeepCopy()
	if resourcehelper.IsPodLevelLimitsSet(pod) {
		for name := range available {
			if limit, ok := pod.Spec.Resources.Limits[name]; ok && !limit.IsZero() {
				available[name] = limit
			}
		}
	}
	if selector.ContainerName != "" || c == nil {
		name := selector.ContainerName
		return resource.ExtractResourceValueByContainerNameAndNodeAllocatable(selector, pod, name, available)
	}
	c = c.DeepCopy()
	resource.MergeContainerResourceLimits(c, available)
	return resource.ExtractContainerResourceValue(selector, c)
}
