package pressure

import (
	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/kubernetes/pkg/kubelet/eviction/api"
)

// Resources that are no resources of the API, by the names that messages give them.
const (
	inodes v1.ResourceName = "inodes"
	pids   v1.ResourceName = "pids"
)

// meanings of the signals. The thresholds of containerfs are ignored, as upstream's kubelet does:
// that filesystem is nodefs or imagefs, see Layout.
var meanings = map[api.Signal]struct {
	resource  v1.ResourceName
	condition v1.NodeConditionType
}{
	api.SignalMemoryAvailable:            {v1.ResourceMemory, v1.NodeMemoryPressure},
	api.SignalAllocatableMemoryAvailable: {v1.ResourceMemory, v1.NodeMemoryPressure},
	api.SignalNodeFsAvailable:            {v1.ResourceEphemeralStorage, v1.NodeDiskPressure},
	api.SignalNodeFsInodesFree:           {inodes, v1.NodeDiskPressure},
	api.SignalImageFsAvailable:           {v1.ResourceEphemeralStorage, v1.NodeDiskPressure},
	api.SignalImageFsInodesFree:          {inodes, v1.NodeDiskPressure},
	api.SignalPIDAvailable:               {pids, v1.NodePIDPressure},
}

// Layout says which filesystems the node has.
type Layout int

// Layouts.
const (
	// OneFilesystem for everything.
	OneFilesystem Layout = iota
	// SeparateImages: imagefs has the images and the writable layers of the containers.
	SeparateImages
	// SplitImages: imagefs has the images alone.
	SplitImages
)

// Reclaim is something that is removed before any Pod is ended.
type Reclaim string

// Reclaims.
const (
	DeadContainers Reclaim = "dead containers"
	UnusedImages   Reclaim = "unused images"
)

// reclaims of a signal, in order.
func (l Layout) reclaims(s api.Signal) []Reclaim {
	switch {
	case meanings[s].condition != v1.NodeDiskPressure, l == SeparateImages && isNodeFs(s):
		return nil
	case l == SplitImages && isNodeFs(s):
		return []Reclaim{DeadContainers}
	case l == SplitImages:
		return []Reclaim{UnusedImages}
	}
	return []Reclaim{DeadContainers, UnusedImages}
}

func isNodeFs(s api.Signal) bool {
	return s == api.SignalNodeFsAvailable || s == api.SignalNodeFsInodesFree
}

func quantity(name v1.ResourceName, value int64) *resource.Quantity {
	return resource.NewQuantity(value, lo.Ternary(name == inodes || name == pids, resource.DecimalSI, resource.BinarySI))
}
