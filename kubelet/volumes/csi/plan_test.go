package csi

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPlanGrowth(t *testing.T) {
	small, large := resource.MustParse("1Gi"), resource.MustParse("2Gi")
	storage := func(size resource.Quantity) v1.ResourceList { return v1.ResourceList{v1.ResourceStorage: size} }
	turn := func(claim *v1.PersistentVolumeClaim, status v1.ClaimResourceStatus) {
		claim.Status.AllocatedResources = storage(large)
		claim.Status.AllocatedResourceStatuses = map[v1.ResourceName]v1.ClaimResourceStatus{v1.ResourceStorage: status}
	}
	shared := func(claim *v1.PersistentVolumeClaim) {
		claim.Spec.AccessModes = []v1.PersistentVolumeAccessMode{v1.ReadWriteMany}
		claim.Status.Capacity, claim.Status.AllocatedResources = storage(large), storage(large)
	}
	for name, tc := range map[string]struct {
		reason string
		change func(*v1.PersistentVolumeClaim, *v1.PersistentVolume)
		want   *growth
	}{
		"nothing": {"The claim has what it wants.", func(*v1.PersistentVolumeClaim, *v1.PersistentVolume) {}, nil},
		"pending": {"It is the node's turn.", func(c *v1.PersistentVolumeClaim, _ *v1.PersistentVolume) {
			turn(c, v1.PersistentVolumeClaimNodeResizePending)
		}, &growth{size: large}},
		"in progress": {"An earlier attempt did not end.", func(c *v1.PersistentVolumeClaim, _ *v1.PersistentVolume) {
			turn(c, v1.PersistentVolumeClaimNodeResizeInProgress)
		}, &growth{size: large}},
		"controller": {"The controller is at work.", func(c *v1.PersistentVolumeClaim, _ *v1.PersistentVolume) {
			turn(c, v1.PersistentVolumeClaimControllerResizeInProgress)
		}, nil},
		"infeasible": {"The driver has refused for good.", func(c *v1.PersistentVolumeClaim, _ *v1.PersistentVolume) {
			turn(c, v1.PersistentVolumeClaimNodeResizeInfeasible)
		}, nil},
		"older resizer": {"It only enlarges the PersistentVolume.", func(_ *v1.PersistentVolumeClaim, pv *v1.PersistentVolume) {
			pv.Spec.Capacity = storage(large)
		}, &growth{size: large}},
		"controller has not said so": {
			"The PersistentVolume is larger, but the controller still has to say whose turn it is.",
			func(c *v1.PersistentVolumeClaim, pv *v1.PersistentVolume) {
				pv.Spec.Capacity, c.Status.AllocatedResources = storage(large), storage(large)
			}, nil,
		},
		"shared": {"Another node has enlarged its part.", func(c *v1.PersistentVolumeClaim, _ *v1.PersistentVolume) {
			shared(c)
		}, &growth{size: large, reported: true}},
		"shared, no node": {"The driver does everything in its controller.", func(c *v1.PersistentVolumeClaim, _ *v1.PersistentVolume) {
			shared(c)
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, notRequired, "true")
		}, nil},
		"not bound": {"There is no capacity to compare with.", func(c *v1.PersistentVolumeClaim, _ *v1.PersistentVolume) {
			c.Status.Capacity = nil
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			spec := newSpec()
			tc.change(spec.Claim, spec.PersistentVolume)
			got := planGrowth(spec.Claim, spec.PersistentVolume, small)
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(growth{})); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}
