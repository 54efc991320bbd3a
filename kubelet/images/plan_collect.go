package images

import (
	"slices"
	"time"
)

// AnnotationVolumes lists the IDs of the images that a container has as volumes,
// with commas between them.
const AnnotationVolumes = "flyball.dev/image-volumes"

// Stored is one image that the runtime has.
type Stored struct {
	ID   string
	Size int64
	// Pinned images, such as that of the sandbox, are never removed.
	Pinned bool
	// InUse says that a container was made from it.
	InUse bool
	// FirstSeen and LastUsed are times at which we looked.
	FirstSeen, LastUsed time.Time
}

// Disk is the file system that images lie on, in bytes.
type Disk struct{ Capacity, Available int64 }

// Policy says when to remove images and how many.
type Policy struct {
	// HighPercent of the disk in use begins a removal, LowPercent ends it.
	HighPercent, LowPercent int64
	// MinAge spares images that have just come: their container may be about to be made.
	MinAge time.Duration
}

// DefaultPolicy has upstream's thresholds.
var DefaultPolicy = Policy{HighPercent: 85, LowPercent: 80, MinAge: 2 * time.Minute}

// removal is one image to remove.
type removal struct {
	ID     string
	Size   int64
	Reason string
}

// planCollect returns the images to remove, those that were not used for longest
// first, and the bytes that are missing to LowPercent even when all are removed.
func planCollect(images []Stored, disk Disk, policy Policy, now time.Time) (plan []removal, missing int64) {
	if disk.Capacity <= 0 || disk.Capacity-disk.Available < disk.Capacity*policy.HighPercent/100 {
		return nil, 0
	}
	missing = disk.Capacity*(100-policy.LowPercent)/100 - disk.Available
	candidates := slices.DeleteFunc(slices.Clone(images), func(i Stored) bool {
		return i.Pinned || i.InUse || now.Sub(i.FirstSeen) < policy.MinAge || !i.LastUsed.Before(now)
	})
	slices.SortFunc(candidates, func(a, b Stored) int {
		if c := a.LastUsed.Compare(b.LastUsed); c != 0 {
			return c
		}
		return a.FirstSeen.Compare(b.FirstSeen)
	})
	for _, image := range candidates {
		if missing <= 0 {
			break
		}
		plan = append(plan, removal{
			ID: image.ID, Size: image.Size, Reason: "the disk is filling up and no container uses the image",
		})
		missing -= image.Size
	}
	return plan, max(missing, 0)
}
