package list

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
)

func volume(name, size, node string, source corev1.PersistentVolumeSource) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}, PersistentVolumeSource: source,
	}}
	if node != "" {
		v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "topology.local.flyball.dev/node", Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
		}}}}
	}
	return v
}

// TestVolumes shows volumes without a kubelet: their use is not known then.
func TestVolumes(t *testing.T) {
	ours := volume("b", "1Gi", "n1", corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
		Driver: "local.flyball.dev", VolumeAttributes: map[string]string{"type": "image", "path": "/x/b"},
	}})
	ours.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "ns", Name: "data"}
	theirs := volume("a", "1500k", "", corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
		Driver: "example.com", VolumeAttributes: map[string]string{"type": "image", "path": "/x/b"},
	}})
	host := volume("c", "1Gi", "", corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv"}})
	got, err := Volumes(t.Context(), fake.NewClientset(ours, theirs, host))
	if err != nil {
		t.Fatal(err)
	}
	rows := []string{}
	for _, v := range got {
		rows = append(rows, v.Row())
	}
	want := []string{
		"a\t-\t-\t-\t-\texample.com\t2Mi\t-\t-",
		"b\tns\tdata\t-\tn1\timage\t1Gi\t-\t/x/b",
		"c\t-\t-\t-\t-\thostPath\t1Gi\t-\t/srv",
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("Volumes(): -want, +got:\n%s", diff)
	}
	if row := (Volume{Used: ptr.To[uint64](1)}).Row(); row != "-\t-\t-\t-\t-\t-\t0\t1Mi\t-" {
		t.Errorf("Row() = %q", row)
	}
}

func TestUsersOf(t *testing.T) {
	pod := func(name, node string, phase corev1.PodPhase, source corev1.VolumeSource) corev1.Pod {
		return corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
			Spec:       corev1.PodSpec{NodeName: node, Volumes: []corev1.Volume{{Name: "data", VolumeSource: source}}},
			Status:     corev1.PodStatus{Phase: phase},
		}
	}
	data := corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}
	got := map[claim][]string{}
	for key, pods := range usersOf([]corev1.Pod{
		pod("web", "n1", corev1.PodRunning, data), pod("done", "n1", corev1.PodSucceeded, data), pod("waits", "", corev1.PodPending, data),
		pod("own", "n1", corev1.PodRunning, corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}),
	}) {
		for _, p := range pods {
			got[key] = append(got[key], p.Name)
		}
	}
	if diff := cmp.Diff(map[claim][]string{{"ns", "data"}: {"web"}, {"ns", "own-data"}: {"own"}}, got, cmp.AllowUnexported(claim{})); diff != "" {
		t.Errorf("usersOf(): -want, +got:\n%s", diff)
	}
}
