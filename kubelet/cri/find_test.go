package cri

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

func TestFind(t *testing.T) {
	pod := &v1.Pod{
		Spec: v1.PodSpec{
			InitContainers: []v1.Container{{Name: "init"}},
			Containers:     []v1.Container{{Name: "main"}},
			EphemeralContainers: []v1.EphemeralContainer{
				{EphemeralContainerCommon: v1.EphemeralContainerCommon{Name: "debug"}},
			},
		},
		Status: v1.PodStatus{
			InitContainerStatuses:      []v1.ContainerStatus{{Name: "init"}},
			ContainerStatuses:          []v1.ContainerStatus{{Name: "main"}},
			EphemeralContainerStatuses: []v1.ContainerStatus{{Name: "debug"}},
		},
	}
	for name, want := range map[string]podutil.ContainerType{
		"init": podutil.InitContainers, "main": podutil.Containers, "debug": podutil.EphemeralContainers,
	} {
		if c, kind := FindContainer(pod, name); c == nil || c.Name != name || kind != want {
			t.Errorf("FindContainer(%s) = %v, %v, want kind %v", name, c, kind, want)
		}
		if s := FindStatus(pod, name); s == nil || s.Name != name {
			t.Errorf("FindStatus(%s) = %v", name, s)
		}
	}
	if c, _ := FindContainer(pod, "other"); c != nil {
		t.Errorf("FindContainer(other) = %v", c)
	}
	if c, _ := FindContainer(nil, "main"); c != nil {
		t.Errorf("FindContainer() of no Pod = %v", c)
	}
	if s := FindStatus(pod, "other"); s != nil {
		t.Errorf("FindStatus(other) = %v", s)
	}
	for id, want := range map[string]string{"containerd://x": "x", "x": "x", "": ""} {
		if got := BareID(id); got != want {
			t.Errorf("BareID(%q) = %q, want %q", id, got, want)
		}
	}
}
