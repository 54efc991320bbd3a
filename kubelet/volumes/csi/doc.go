// Package csi makes the volumes of CSI drivers ready on this node: those of PersistentVolumes, and
// inline volumes of Pods. It is a volumes.StagingPlugin, which calls the Node service of the drivers
// that have registered, and the plugins.Handler that they register with.
//
//	driver.go    registered drivers, and what they can do
//	client.go    the connection to a driver: timeouts, errors and metrics of each call
//	node.go      what the cluster is told of a driver: CSINode, labels and annotations of the Node
//	identify.go  which volume it is, and what its driver demands
//	stage.go     NodeStageVolume, NodeUnstageVolume
//	publish.go   NodePublishVolume, NodeUnpublishVolume, fsGroup
//	expand.go    NodeExpandVolume; plan.go decides about it
//	secrets.go   secrets and service account tokens that calls carry; neither is ever logged
//	stats.go     NodeGetVolumeStats
//
// It writes the CSINode of this node, the Node's topology labels and its annotation
// csi.volume.kubernetes.io/nodeid, and in the status of claims what tells that a volume has grown.
//
// What is in memory only saves calls: after a restart drivers register again, and a volume that is
// staged or published is so again, which drivers owe to be idempotent.
//
// Not supported are SELinux mount options and the health of volumes, which is alpha.
package csi
