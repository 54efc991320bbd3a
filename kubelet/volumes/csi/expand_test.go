package csi

import (
	"slices"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestExpand(t *testing.T) {
	const pending, inProgress = v1.PersistentVolumeClaimNodeResizePending, v1.PersistentVolumeClaimNodeResizeInProgress
	both := func(what string) []string { return []string{"*v1.Pod " + what, "*v1.PersistentVolumeClaim " + what} }
	failed := both("Warning VolumeResizeFailed")
	for name, tc := range map[string]struct {
		reason   string
		can      []csipb.NodeServiceCapability_RPC_Type
		answer   error
		readOnly bool
		calls    int // of three attempts
		capacity string
		status   v1.ClaimResourceStatus
		events   []string // of the first attempt
	}{
		"success": {
			reason: "The claim has its size.", can: []csipb.NodeServiceCapability_RPC_Type{growing},
			calls: 1, capacity: "2Gi", events: both("Normal FileSystemResizeSuccessful"),
		},
		"nothing to do on nodes": {
			reason: "The claim has its size, since the controller has done everything.", capacity: "2Gi",
		},
		"infeasible": {
			reason: "The controller may try another size.", can: []csipb.NodeServiceCapability_RPC_Type{growing},
			answer: status.Error(codes.OutOfRange, "no"), calls: 1, capacity: "1Gi",
			status: v1.PersistentVolumeClaimNodeResizeInfeasible, events: failed,
		},
		"failed": {
			reason: "It is tried again.", can: []csipb.NodeServiceCapability_RPC_Type{growing},
			answer: status.Error(codes.Internal, "no"), calls: 3, capacity: "1Gi", status: inProgress, events: failed,
		},
		"not known": {
			reason: "The driver may be at it.", can: []csipb.NodeServiceCapability_RPC_Type{growing},
			answer: status.Error(codes.Aborted, "pending"), calls: 3, capacity: "1Gi", status: inProgress, events: failed,
		},
		"in use": {
			reason: "It is not tried again as long as the Pod runs.", can: []csipb.NodeServiceCapability_RPC_Type{growing},
			answer: status.Error(codes.FailedPrecondition, "in use"), calls: 1, capacity: "1Gi", status: inProgress, events: failed,
		},
		"read-only": {
			reason: "It cannot be expanded.", can: []csipb.NodeServiceCapability_RPC_Type{growing},
			readOnly: true, capacity: "1Gi", status: pending, events: both("Warning FileSystemResizeFailed"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec := newSpec()
			spec.Volume.PersistentVolumeClaim.ReadOnly = tc.readOnly
			large := v1.ResourceList{v1.ResourceStorage: resource.MustParse("2Gi")}
			spec.PersistentVolume.Spec.Capacity, spec.Claim.Status.AllocatedResources = large, large
			spec.Claim.Spec.Resources.Requests = large
			spec.Claim.Status.AllocatedResourceStatuses = map[v1.ResourceName]v1.ClaimResourceStatus{v1.ResourceStorage: pending}
			spec.Claim.Status.Conditions = []v1.PersistentVolumeClaimCondition{{
				Type: v1.PersistentVolumeClaimFileSystemResizePending, Status: v1.ConditionTrue,
			}}
			f, d := newFixture(t, newInfo(), spec.Claim), newFakeDriver(t, append(tc.can, stage)...)
			f.register(d)
			d.set("NodeExpandVolume", tc.answer)
			for i := range 3 {
				if _, err := f.publish(spec); err != nil {
					t.Fatalf("the Pod does not get its volume: %v", err)
				}
				if diff := cmp.Diff(tc.events, f.events); i == 0 && diff != "" {
					t.Errorf("%s Events (-want +got):\n%s", tc.reason, diff)
				}
				spec.Claim = f.claim()
			}
			if n := d.count("NodeExpandVolume"); n != tc.calls {
				t.Errorf("%s %d calls, want %d", tc.reason, n, tc.calls)
			}
			got := spec.Claim.Status
			if got.Capacity.Storage().String() != tc.capacity || got.AllocatedResourceStatuses[v1.ResourceStorage] != tc.status {
				t.Errorf("%s status = %+v", tc.reason, got)
			}
			waits := slices.ContainsFunc(got.Conditions, func(c v1.PersistentVolumeClaimCondition) bool {
				return c.Type == v1.PersistentVolumeClaimFileSystemResizePending
			})
			if waits != (tc.capacity == "1Gi") {
				t.Errorf("%s conditions = %+v", tc.reason, got.Conditions)
			}
			if tc.calls == 0 {
				return
			}
			request := d.last("NodeExpandVolume").(*csipb.NodeExpandVolumeRequest)
			if request.VolumePath == "" || request.StagingTargetPath == "" || request.CapacityRange.RequiredBytes != 2<<30 {
				t.Errorf("request = %v", request)
			}
		})
	}
}
