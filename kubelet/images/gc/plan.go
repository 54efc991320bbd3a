package gc

import (
	"slices"
	"time"
)

// image is one image that the runtime has.
type image struct {
	ID   string
	Size int64
	// Pinned images, such as that of the sandbox, are never removed.
	Pinned bool
	// InUse is set if a container uses it.
	InUse bool
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

// removal removes one image.
type removal struct {
	ID     string
	Size   int64
	Reason string
}

// plan returns the removals, least recently used images first, and the bytes that are missing to
// LowPercent even after all of them.
func plan(images []image, disk disk, policy Policy, now time.Time) (removals []removal, missing int64) {
	if disk.Capacity <= 0 || disk.Capacity-disk.Available < disk.Capacity*policy.HighPercent/100 {
		return nil, 0
	}
	missing = disk.Capacity*(100-policy.LowPercent)/100 - disk.Available
	candidates := slices.DeleteFunc(slices.Clone(images), func(i image) bool {
		return i.Pinned || i.InUse || now.Sub(i.FirstSeen) < policy.MinAge || !i.LastUsed.Before(now)
	})
	slices.SortFunc(candidates, func(a, b image) int {
		if c := a.LastUsed.Compare(b.LastUsed); c != 0 {
			return c
		}
		return a.FirstSeen.Compare(b.FirstSeen)
	})
	for _, i := range candidates {
		if missing <= 0 {
			break
		}
		removals = append(removals, removal{
			ID: i.ID, Size: i.Size, Reason: "the disk is filling up and no container uses the image",
		})
		missing -= i.Size
	}
	return removals, max(missing, 0)
}
