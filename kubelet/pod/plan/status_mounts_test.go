package plan

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

func TestRecursiveReadOnlyStatus(t *testing.T) {
	for name, tc := range map[string]struct {
		reason  string
		handler string
		mode    *v1.RecursiveReadOnlyMode
		want    v1.RecursiveReadOnlyMode
	}{
		"Unasked":     {reason: "only who asks gets it", want: v1.RecursiveReadOnlyDisabled},
		"IfPossible":  {reason: "the runtime can", mode: ptr.To(v1.RecursiveReadOnlyIfPossible), want: v1.RecursiveReadOnlyEnabled},
		"NotPossible": {reason: "this handler cannot", handler: "gvisor", mode: ptr.To(v1.RecursiveReadOnlyIfPossible), want: v1.RecursiveReadOnlyDisabled},
	} {
		t.Run(name, func(t *testing.T) {
			pod := testPod(func(p *v1.Pod) {
				p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "v", MountPath: "/v", ReadOnly: true, RecursiveReadOnly: tc.mode}}
			})
			w := newWorld(pod, t.Errorf)
			w.state.Node.RecursiveReadOnly = sets.New("")
			w.state.Runtime.Sandboxes = []cri.Sandbox{{ID: "s", Ready: true, IPs: []string{"10.0.0.1"}, Handler: tc.handler}}
			got := Status(w.state, epoch).ContainerStatuses[0].VolumeMounts
			want := []v1.VolumeMountStatus{{Name: "v", MountPath: "/v", ReadOnly: true, RecursiveReadOnly: &tc.want}}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s\nvolumeMounts -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}
