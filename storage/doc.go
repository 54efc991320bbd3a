// Package storage runs local.flyball.dev, a CSI driver whose volumes lie on the disk of a node, and
// what a cluster needs around it. Package driver has the CSI services and the volumes on disk.
//
// Run is the driver of one node. It serves the CSI services on a socket and registers that with the
// kubelet, as every driver does. Beside them three loops do for this node's volumes what the
// external sidecars do for other drivers:
//
//	claims      a claim for this node gets a volume (provisioner), or a larger one (resizer)
//	volumes     a PersistentVolume that is released is deleted with its data (provisioner)
//	capacities  a CSIStorageCapacity per StorageClass says how much fits here (provisioner)
//
// Each acts on its own node's objects only, so none needs a leader. The sidecars' own libraries are
// not used for them: external-provisioner and external-resizer register feature gates that
// kube-apiserver has too, with other specs, and that ends a process which has both; they also patch
// the volumes of all nodes, change client-go's scheme while others read it, and exit the process
// when the driver's socket closes. The names that users and tools know (annotations, finalizer,
// conditions, reasons of Events) are the sidecars'.
//
// Snapshots are taken by external-snapshotter's library, on each node for the contents with the
// node's label. RunSnapshotController is the cluster's half of it, on a server.
package storage
