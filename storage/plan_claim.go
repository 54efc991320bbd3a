package storage

import (
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/samber/lo"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

// Names that the PersistentVolume controller and the scheduler know.
const (
	annProvisioner     = "volume.kubernetes.io/storage-provisioner"
	annBetaProvisioner = "volume.beta.kubernetes.io/storage-provisioner"
	annSelectedNode    = "volume.kubernetes.io/selected-node"
	annProvisionedBy   = "pv.kubernetes.io/provisioned-by"
)

// driverName and topologyKey are those of package driver, which a plan does not import.
const (
	driverName  = "local.flyball.dev"
	topologyKey = "topology.local.flyball.dev/node"
)

// The kinds that a volume can be a copy of.
const kindClaim, kindSnapshot = "PersistentVolumeClaim", "VolumeSnapshot"

// claimState is the input of planClaim.
type claimState struct {
	// Node is the name of this node.
	Node  string
	Claim *corev1.PersistentVolumeClaim
	// Class is the claim's StorageClass, and Volume the PersistentVolume that it is bound to; nil if
	// there is none.
	Class  *storagev1.StorageClass
	Volume *corev1.PersistentVolume
	// SourceNode is the node with the volume or snapshot that the new volume is a copy of; empty if
	// it is a copy of none.
	SourceNode string
	Now        time.Time
}

// verb is what to do for a claim.
type verb string

const (
	leave     verb = ""          // nothing
	choose    verb = "select"    // set the node that is to have the volume
	provision verb = "provision" // create the volume here
	expand    verb = "expand"    // make the volume at least as large as Size
	refuse    verb = "refuse"    // only a change of the claim helps
)

// claimAction is what to do for a claim, and why.
type claimAction struct {
	Do     verb
	Reason string
	// Node is the node to select.
	Node string
	Size resource.Quantity
	// RequeueAfter is when to reconcile again if nothing changes before; zero means never.
	RequeueAfter time.Duration
}

// planClaim decides what this node does for a claim.
func planClaim(s claimState) claimAction {
	switch {
	case s.Claim.DeletionTimestamp != nil:
		return claimAction{}
	case s.Claim.Spec.VolumeName != "":
		return planExpansion(s)
	case !wanted(s.Claim) || s.Class == nil || s.Class.Provisioner != driverName:
		return claimAction{}
	}
	selected := s.Claim.Annotations[annSelectedNode]
	immediate := ptr.Deref(s.Class.VolumeBindingMode, storagev1.VolumeBindingImmediate) == storagev1.VolumeBindingImmediate
	switch {
	case selected == "" && immediate:
		return planImmediate(s)
	case selected != s.Node:
		return claimAction{}
	case s.SourceNode != "" && s.SourceNode != s.Node:
		return claimAction{Do: choose, Node: s.SourceNode, Reason: fmt.Sprintf("the source of its data is on node %s, and a volume is a copy on the same disk", s.SourceNode)}
	case s.Claim.Spec.Selector != nil:
		return claimAction{Do: refuse, Reason: "a claim with a selector is bound to a PersistentVolume that exists; remove the selector for a new one"}
	}
	return claimAction{Do: provision}
}

// wanted reports whether the PersistentVolume controller has asked this driver for a volume, and no
// other program is to populate it.
func wanted(claim *corev1.PersistentVolumeClaim) bool {
	if from := claim.Spec.DataSourceRef; from != nil && from.Kind != kindClaim && from.Kind != kindSnapshot {
		return false
	}
	name, found := claim.Annotations[annProvisioner]
	if !found {
		name = claim.Annotations[annBetaProvisioner]
	}
	return name == driverName
}

// spread is how long after a claim the last node tries to take it.
const spread = time.Second

// planImmediate decides about a claim whose volume is wanted before a Pod is: any node may take it.
// Each tries at a moment of its own, so that claims spread over nodes; the API server lets the first
// one write.
func planImmediate(s claimState) claimAction {
	allowed := len(s.Class.AllowedTopologies) == 0 || slices.ContainsFunc(s.Class.AllowedTopologies, func(t corev1.TopologySelectorTerm) bool {
		return lo.EveryBy(t.MatchLabelExpressions, func(r corev1.TopologySelectorLabelRequirement) bool {
			return r.Key == topologyKey && slices.Contains(r.Values, s.Node)
		})
	})
	if !allowed || s.SourceNode != "" && s.SourceNode != s.Node {
		return claimAction{}
	}
	hash := fnv.New32()
	_, _ = hash.Write([]byte(s.Node + string(s.Claim.UID)))
	at := s.Claim.CreationTimestamp.Add(time.Duration(hash.Sum32()) * spread >> 32)
	if wait := at.Sub(s.Now); wait > 0 {
		return claimAction{RequeueAfter: wait}
	}
	return claimAction{Do: choose, Node: s.Node, Reason: "its volume is wanted before a Pod"}
}

// planExpansion decides about a claim that has a volume. The statuses are those of KEP-1790, which
// let users reduce a request that cannot be met.
func planExpansion(s claimState) claimAction {
	claim, volume := s.Claim, s.Volume
	if volume == nil || !ownedBy(volume, s.Node) || volume.Spec.ClaimRef == nil || volume.Spec.ClaimRef.UID != claim.UID ||
		claim.Status.Phase != corev1.ClaimBound {
		return claimAction{}
	}
	size := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if size.Cmp(claim.Status.Capacity[corev1.ResourceStorage]) <= 0 {
		return claimAction{}
	}
	has := volume.Spec.Capacity[corev1.ResourceStorage]
	allocated := claim.Status.AllocatedResources[corev1.ResourceStorage]
	switch claim.Status.AllocatedResourceStatuses[corev1.ResourceStorage] {
	case corev1.PersistentVolumeClaimNodeResizePending, corev1.PersistentVolumeClaimNodeResizeInProgress:
		if has.Cmp(allocated) >= 0 {
			return claimAction{} // the kubelet is next
		}
		size = allocated
	case corev1.PersistentVolumeClaimNodeResizeInfeasible:
		size = allocated // the kubelet has failed, and may try again
	}
	if size.Cmp(has) < 0 {
		size = has // volumes do not shrink
	}
	return claimAction{Do: expand, Size: size}
}

// ownedBy reports whether a PersistentVolume is one of ours on this node.
func ownedBy(volume *corev1.PersistentVolume, node string) bool {
	return volume.Spec.CSI != nil && volume.Spec.CSI.Driver == driverName && nodeOf(volume) == node
}

// nodeOf is the node whose disk has the volume; empty if that is not said.
func nodeOf(volume *corev1.PersistentVolume) string {
	if volume.Spec.NodeAffinity == nil || volume.Spec.NodeAffinity.Required == nil {
		return ""
	}
	for _, term := range volume.Spec.NodeAffinity.Required.NodeSelectorTerms {
		for _, e := range term.MatchExpressions {
			if e.Key == topologyKey && e.Operator == corev1.NodeSelectorOpIn && len(e.Values) == 1 {
				return e.Values[0]
			}
		}
	}
	return ""
}
