package storage

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func storageList(size string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
}

// pending is a claim of 1Gi that the scheduler wants a volume for on node a.
func pending() claimState {
	return claimState{
		Node: "a", Now: now,
		Claim: &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "ns", Name: "data", UID: "1", CreationTimestamp: metav1.NewTime(now.Add(-time.Hour)),
				Annotations: map[string]string{annProvisioner: driverName, annSelectedNode: "a"},
			},
			Spec: corev1.PersistentVolumeClaimSpec{Resources: corev1.VolumeResourceRequirements{Requests: storageList("1Gi")}},
		},
		Class: &storagev1.StorageClass{
			Provisioner: driverName, VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer),
		},
	}
}

// growing is a claim with a volume of 1Gi on node a, which asks for 2Gi.
func growing() claimState {
	s := pending()
	s.Claim.Spec.VolumeName, s.Claim.Spec.Resources.Requests = "pv", storageList("2Gi")
	s.Claim.Status.Phase, s.Claim.Status.Capacity = corev1.ClaimBound, storageList("1Gi")
	s.Volume = newVolume(pending(), nil)
	s.Volume.Spec.Capacity = storageList("1Gi")
	return s
}

func resizing(s *claimState, state corev1.ClaimResourceStatus, allocated string) {
	s.Claim.Status.AllocatedResources = storageList(allocated)
	s.Claim.Status.AllocatedResourceStatuses = map[corev1.ResourceName]corev1.ClaimResourceStatus{corev1.ResourceStorage: state}
}

func TestPlanClaim(t *testing.T) {
	immediate := func(s *claimState) {
		s.Class.VolumeBindingMode = nil
		delete(s.Claim.Annotations, annSelectedNode)
	}
	for name, tc := range map[string]struct {
		reason string
		base   func() claimState
		mutate func(*claimState)
		want   claimAction
	}{
		"Selected": {"the scheduler has chosen this node", pending, nil, claimAction{Do: provision}},
		"BetaName": {"older controllers use the beta annotation", pending, func(s *claimState) {
			s.Claim.Annotations = map[string]string{annBetaProvisioner: driverName, annSelectedNode: "a"}
		}, claimAction{Do: provision}},
		"OtherNode":    {"the other node has the disk", pending, func(s *claimState) { s.Node = "b" }, claimAction{}},
		"NotScheduled": {"no Pod has the claim yet", pending, func(s *claimState) { delete(s.Claim.Annotations, annSelectedNode) }, claimAction{}},
		"OtherDriver":  {"another driver's claim", pending, func(s *claimState) { s.Claim.Annotations[annProvisioner] = "example.com" }, claimAction{}},
		"OtherClass":   {"the class is what counts in the end", pending, func(s *claimState) { s.Class.Provisioner = "example.com" }, claimAction{}},
		"Ending":       {"nobody wants it any more", pending, func(s *claimState) { s.Claim.DeletionTimestamp = &metav1.Time{Time: now} }, claimAction{}},
		"Populator":    {"an empty volume in place of the data would be a lie", pending, func(s *claimState) { s.Claim.Spec.DataSourceRef = &corev1.TypedObjectReference{Kind: "Image"} }, claimAction{}},
		"Selector":     {"a selector asks for a volume that exists", pending, func(s *claimState) { s.Claim.Spec.Selector = &metav1.LabelSelector{} }, claimAction{Do: refuse}},
		"SourceElsewhere": {
			"a snapshot is on the disk of its node; the scheduler does not know", pending, func(s *claimState) { s.SourceNode = "b" },
			claimAction{Do: choose, Node: "b"},
		},
		"SourceHere":          {"the copy is on the same disk", pending, func(s *claimState) { s.SourceNode = "a" }, claimAction{Do: provision}},
		"Immediate":           {"any node may take it", pending, immediate, claimAction{Do: choose, Node: "a"}},
		"ImmediateNew":        {"each node tries at a moment of its own", pending, func(s *claimState) { immediate(s); s.Claim.CreationTimestamp.Time = now }, claimAction{RequeueAfter: 439318503}},
		"ImmediateTaken":      {"another node was first", pending, func(s *claimState) { immediate(s); s.Claim.Annotations[annSelectedNode] = "b" }, claimAction{}},
		"ImmediateMine":       {"this node was first", pending, func(s *claimState) { immediate(s); s.Claim.Annotations[annSelectedNode] = "a" }, claimAction{Do: provision}},
		"ImmediateSource":     {"only the source's node can", pending, func(s *claimState) { immediate(s); s.SourceNode = "b" }, claimAction{}},
		"ImmediateTopology":   {"the class allows other nodes only", pending, func(s *claimState) { immediate(s); allow(s, topologyKey, "b") }, claimAction{}},
		"ImmediateAllowed":    {"the class allows this node", pending, func(s *claimState) { immediate(s); allow(s, topologyKey, "b", "a") }, claimAction{Do: choose, Node: "a"}},
		"ImmediateOtherLabel": {"a topology that the driver does not know", pending, func(s *claimState) { immediate(s); allow(s, "zone", "a") }, claimAction{}},

		"Grow":         {"the claim asks for more than it has", growing, nil, claimAction{Do: expand, Size: resource.MustParse("2Gi")}},
		"GrowElse":     {"the volume is on another node", growing, func(s *claimState) { s.Node = "b" }, claimAction{}},
		"GrowUnbound":  {"the volume belongs to an earlier claim of this name", growing, func(s *claimState) { s.Volume.Spec.ClaimRef.UID = "0" }, claimAction{}},
		"GrowPending":  {"the phase says that both are bound", growing, func(s *claimState) { s.Claim.Status.Phase = corev1.ClaimPending }, claimAction{}},
		"Grown":        {"it has what it asks for", growing, func(s *claimState) { s.Claim.Status.Capacity = storageList("2Gi") }, claimAction{}},
		"KubeletsTurn": {"the volume has grown, its file system has not", growing, func(s *claimState) { grew(s, "2Gi"); resizing(s, corev1.PersistentVolumeClaimNodeResizePending, "2Gi") }, claimAction{}},
		"AskedForMore": {
			"the kubelet finishes the earlier expansion first", growing,
			func(s *claimState) {
				grew(s, "2Gi")
				resizing(s, corev1.PersistentVolumeClaimNodeResizeInProgress, "2Gi")
				s.Claim.Spec.Resources.Requests = storageList("3Gi")
			},
			claimAction{},
		},
		"Interrupted": {
			"the process ended before it recorded the new size: expanding to what it has is no change", growing,
			func(s *claimState) {
				grew(s, "2Gi")
				resizing(s, corev1.PersistentVolumeClaimControllerResizeInProgress, "2Gi")
			},
			claimAction{Do: expand, Size: resource.MustParse("2Gi")},
		},
		"Reduced": {
			"the user asks for less than what did not fit", growing,
			func(s *claimState) {
				resizing(s, corev1.PersistentVolumeClaimControllerResizeInfeasible, "9Ti")
			},
			claimAction{Do: expand, Size: resource.MustParse("2Gi")},
		},
		"ReducedTooFar": {
			"a volume does not shrink", growing,
			func(s *claimState) {
				grew(s, "4Gi")
				resizing(s, corev1.PersistentVolumeClaimControllerResizeInfeasible, "9Ti")
			},
			claimAction{Do: expand, Size: resource.MustParse("4Gi")},
		},
		"KubeletFailed": {
			"doing it again lets the kubelet try again", growing,
			func(s *claimState) {
				grew(s, "2Gi")
				resizing(s, corev1.PersistentVolumeClaimNodeResizeInfeasible, "2Gi")
			},
			claimAction{Do: expand, Size: resource.MustParse("2Gi")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := tc.base()
			if tc.mutate != nil {
				tc.mutate(&s)
			}
			if diff := cmp.Diff(tc.want, planClaim(s), cmpopts.IgnoreFields(claimAction{}, "Reason")); diff != "" {
				t.Errorf("%s\nplanClaim(): -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func allow(s *claimState, key string, nodes ...string) {
	s.Class.AllowedTopologies = []corev1.TopologySelectorTerm{{
		MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: key, Values: nodes}},
	}}
}

func grew(s *claimState, size string) { s.Volume.Spec.Capacity = storageList(size) }

func TestPlanVolume(t *testing.T) {
	for name, tc := range map[string]struct {
		reason    string
		phase     corev1.PersistentVolumePhase
		policy    corev1.PersistentVolumeReclaimPolicy
		finalized bool
		ending    bool
		want      fate
	}{
		"Bound":          {"it is in use", corev1.VolumeBound, corev1.PersistentVolumeReclaimDelete, true, false, protected},
		"BoundEnding":    {"the user deleted it before the claim", corev1.VolumeBound, corev1.PersistentVolumeReclaimDelete, true, true, protected},
		"Released":       {"the claim is gone", corev1.VolumeReleased, corev1.PersistentVolumeReclaimDelete, true, false, deleted},
		"ReleasedBare":   {"the finalizer may have been removed by the last process", corev1.VolumeReleased, corev1.PersistentVolumeReclaimDelete, false, false, deleted},
		"ReleasedEnding": {"the finalizer has waited for this", corev1.VolumeReleased, corev1.PersistentVolumeReclaimDelete, true, true, deleted},
		"EndingBare":     {"others have finalizers too; the data is deleted already, or is not to be", corev1.VolumeReleased, corev1.PersistentVolumeReclaimDelete, false, true, retained},
		"Retain":         {"the user wants the data", corev1.VolumeReleased, corev1.PersistentVolumeReclaimRetain, true, false, retained},
		"Static":         {"a PersistentVolume that a user wrote, which no claim has yet", corev1.VolumeAvailable, corev1.PersistentVolumeReclaimDelete, false, false, retained},
		"StaticBound":    {"its data is to be deleted with it from now on", corev1.VolumeBound, corev1.PersistentVolumeReclaimDelete, false, false, protected},
		"New":            {"its claim is about to be bound", corev1.VolumePending, corev1.PersistentVolumeReclaimDelete, true, false, protected},
		"NeverBound":     {"nothing would ever release it", corev1.VolumeAvailable, corev1.PersistentVolumeReclaimDelete, true, true, retained},
	} {
		t.Run(name, func(t *testing.T) {
			volume := newVolume(pending(), nil)
			volume.Finalizers, volume.Status.Phase, volume.Spec.PersistentVolumeReclaimPolicy = nil, tc.phase, tc.policy
			if tc.finalized {
				volume.Finalizers = []string{finalizer}
			}
			if tc.ending {
				volume.DeletionTimestamp = &metav1.Time{Time: now}
			}
			if _, got := planVolume(volume); got != tc.want {
				t.Errorf("%s: it is %q, want %q", tc.reason, got, tc.want)
			}
		})
	}
}
