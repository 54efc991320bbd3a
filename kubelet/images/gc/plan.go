package gc

import (
	"cmp"
	"slices"
	"time"
)

// image is one image that the runtime has.
type image struct {
	ID   string
	Size int64
	// Pinned images, such as that of the sandbox, are never removed; a container uses one InUse.
	Pinned, InUse bool
	// FirstSeen and LastUsed are times of observations.
	FirstSeen, LastUsed time.Time
}

// disk is the file system of the images, in bytes.
type disk struct{ Capacity, Available int64 }

// Policy is when images are removed and how many.
type Policy struct {
	// HighPercent of the disk in use starts a removal, LowPercent ends it.
	HighPercent, LowPercent int64
	// MinAge keeps images that were just pulled: their container may not be created yet.
	MinAge time.Duration
}

// DefaultPolicy has upstream's thresholds.
var DefaultPolicy = Policy{HighPercent: 85, LowPercent: 80, MinAge: 2 * time.Minute}

// plan returns the images to remove since the disk is filling up and no container uses them, least
// recently used first, and the bytes that are missing to LowPercent even without all of them.
func plan(images []image, disk disk, policy Policy, now time.Time) (removals []image, missing int64) {
	if disk.Capacity <= 0 || disk.Capacity-disk.Available < disk.Capacity*policy.HighPercent/100 {
		return nil, 0
	}
	missing = disk.Capacity*(100-policy.LowPercent)/100 - disk.Available
	candidates := slices.DeleteFunc(slices.Clone(images), func(i image) bool {
		return i.Pinned || i.InUse || now.Sub(i.FirstSeen) < policy.MinAge || !i.LastUsed.Before(now)
	})
	slices.SortFunc(candidates, func(a, b image) int {
		return cmp.Or(a.LastUsed.Compare(b.LastUsed), a.FirstSeen.Compare(b.FirstSeen))
	})
	for _, i := range candidates {
		if missing <= 0 {
			break
		}
		removals = append(removals, i)
		missing -= i.Size
	}
	return removals, max(missing, 0)
}
