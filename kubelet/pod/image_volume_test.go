package pod

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"

	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/images"
)

// withImages gives the Pod volumes that are images, of which its container has the first.
func withImages(p *v1.Pod) {
	for _, name := range []string{"used", "unused"} {
		p.Spec.Volumes = append(p.Spec.Volumes, v1.Volume{Name: name, VolumeSource: v1.VolumeSource{Image: &v1.ImageVolumeSource{Reference: name + ":1"}}})
	}
	p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "used", MountPath: "/m"}}
}

func TestImageVolume(t *testing.T) {
	r := newRig(t)
	r.start()
	r.create(withImages)
	r.eventually("the Pod runs", r.phase(v1.PodRunning))
	r.runtime.mu.Lock()
	used := r.runtime.pods["u1"].Containers[0].Annotations[cri.AnnotationImageVolumes]
	r.runtime.mu.Unlock()
	if diff := cmp.Diff("sha256:used:1", used); diff != "" {
		t.Errorf("images of volumes -want +got:\n%s", diff)
	}
	r.delete(1)
	r.nothingLeft()
}

func TestImageVolumeThatCannotBePulled(t *testing.T) {
	r := newRig(t)
	r.node.noVolume = &images.Error{Reason: images.ReasonErrImagePull, Message: "no such image"}
	r.start()
	r.create(withImages)
	r.eventually("the container waits as for an image of its own", func() bool {
		list := r.pod().Status.ContainerStatuses
		return len(list) == 1 && list[0].State.Waiting != nil && list[0].State.Waiting.Reason == images.ReasonErrImagePull &&
			list[0].State.Waiting.Message == "no such image"
	})
	r.delete(1)
	r.nothingLeft()
}
