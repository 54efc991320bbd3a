package cri

import (
	"maps"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	v1helper "k8s.io/kubernetes/pkg/apis/core/v1/helper"
)

// Limits are the container's limits, and the Pod's where the container has none (KEP-2837).
func Limits(pod *v1.ResourceRequirements, container v1.ResourceRequirements) v1.ResourceList {
	if !resourcehelper.IsPodLevelResourcesSet(&v1.Pod{Spec: v1.PodSpec{Resources: pod}}) {
		return container.Limits
	}
	limits := v1.ResourceList{}
	maps.Copy(limits, pod.Limits)
	for name, q := range container.Limits {
		if !q.IsZero() || v1helper.IsHugePageResourceName(name) {
			limits[name] = q
		}
	}
	return limits
}
