package csi

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// notRequired is the annotation of a claim whose driver said that nodes need not do anything.
const notRequired = "volume.kubernetes.io/node-expansion-not-required"

// growth is what the node has to do for a volume that is being expanded.
type growth struct {
	size resource.Quantity
	// reported says that the claim has the size already: another node has done the same before.
	reported bool
}

// planGrowth decides about the expansion of a volume that has the size here as far as this node
// knows. It follows KEP-1790: the controller says in the claim's status that it is the node's turn.
// Resizers older than that only enlarge the PersistentVolume.
func planGrowth(claim *v1.PersistentVolumeClaim, pv *v1.PersistentVolume, here resource.Quantity) *growth {
	capacity, known := claim.Status.Capacity[v1.ResourceStorage]
	if !known {
		return nil
	}
	size, recoverable := claim.Status.AllocatedResources[v1.ResourceStorage]
	if !recoverable {
		size = pv.Spec.Capacity[v1.ResourceStorage]
	}
	switch status := claim.Status.AllocatedResourceStatuses[v1.ResourceStorage]; {
	case status == v1.PersistentVolumeClaimNodeResizePending || status == v1.PersistentVolumeClaimNodeResizeInProgress:
		return &growth{size: size}
	case status != "": // the controller is at work, or nodes have failed for good
		return nil
	case !recoverable && capacity.Cmp(size) < 0:
		return &growth{size: size}
	case slices.Contains(claim.Spec.AccessModes, v1.ReadWriteMany) && here.Cmp(capacity) < 0 && claim.Annotations[notRequired] == "":
		return &growth{size: capacity, reported: true}
	}
	return nil
}
