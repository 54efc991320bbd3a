package driver

const (
	// Name is what StorageClasses and CSINodes call the driver.
	Name = "local.flyball.dev"
	// TopologyKey is the label of a node that says where a volume is.
	TopologyKey = "topology.local.flyball.dev/node"
)

// Config of a driver.
type Config struct {
	NodeName string
	// Dir has the folders volumes and snapshots.
	Dir string
	// Paths are other directories on this node, absolute, that StorageClasses may name instead.
	Paths []string
	// ReservePercent of a disk is not for volumes. The default is 10: below that the kubelet evicts
	// Pods by default (nodefs.available).
	ReservePercent int
	// Version is reported by GetPluginInfo.
	Version string
}
