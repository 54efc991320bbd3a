// Package plan decides what the node does next with one of its volumes: stage it once for all
// Pods, publish it to a Pod, unpublish it, unstage it.
//
// Next is a pure function. Package volumes observes (records on disk, what Pods want, the Node's
// status), calls it until it returns nil, and carries the actions out. Each action is recorded on
// disk before it is carried out, so that Progress of a restarted agent is Begun wherever the
// former process did anything that it did not undo. Actions are idempotent: what is Begun is done
// again, or undone.
package plan

import (
	"k8s.io/apimachinery/pkg/types"
)

// Progress of staging a volume, or of publishing it to a Pod.
type Progress int

const (
	// Absent says that nothing was done, or that all of it was undone.
	Absent Progress = iota
	// Begun says that a record exists, but not whether the action ended.
	Begun
	// Done says that the action succeeded in this process.
	Done
)

// Target is where a volume is published: a volume in the spec of a Pod.
type Target struct {
	Pod types.UID
	// Volume is its name in the spec.
	Volume string
}

// Use of the volume by one target.
type Use struct {
	// Wanted says that the Pod is to have the volume.
	Wanted    bool
	Published Progress
}

// State of one volume on the node.
type State struct {
	// Attach says that the attach/detach controller attaches the volume to the node first.
	Attach bool
	// Stage says that the volume is staged once per node before it is published to Pods.
	Stage bool
	// Exclusive is the access mode ReadWriteOncePod.
	Exclusive bool

	// InUse and Attached say whether the Node's status lists the volume in volumesInUse and in
	// volumesAttached.
	InUse, Attached bool

	Staged Progress
	Uses   map[Target]Use
}

// Action is the next step. Its reason is for logs, and for the user who waits.
type Action interface{ Why() string }

// Reason is why an action is necessary.
type Reason string

// Why implements Action.
func (r Reason) Why() string { return string(r) }

// The actions.
type (
	// Wait until the Node's status or the use by another Pod changes.
	Wait struct{ Reason }
	// Stage the volume.
	Stage struct{ Reason }
	// Publish the volume to the target.
	Publish struct{ Reason }
	// Unpublish the volume from the target.
	Unpublish struct{ Reason }
	// Unstage the volume.
	Unstage struct{ Reason }
)

// Reasons of Wait.
const (
	UsedByOther = "volume uses the ReadWriteOncePod access mode and is already in use by another pod"
	NotReported = "waiting for the Node's status to report the volume as in use"
	NotAttached = "waiting for the volume to be attached to the node"
)

// Next returns the next action for the target, or nil if the volume is as the target wants it. The
// empty Target wants nothing: for it, a volume that no Pod uses is unstaged.
func Next(s State, t Target) Action {
	use := s.Uses[t]
	switch {
	case use.Wanted && use.Published == Done:
		return nil
	case use.Wanted:
		return s.publish(t)
	case use.Published != Absent:
		return Unpublish{"the Pod does not use the volume any more"}
	case s.Staged != Absent && !s.used():
		return Unstage{"no Pod uses the volume"}
	}
	return nil
}

func (s State) publish(t Target) Action {
	switch {
	case s.Exclusive && s.publishedToOther(t):
		return Wait{UsedByOther}
	case s.Attach && s.Staged != Done && !s.InUse:
		return Wait{NotReported}
	case s.Attach && s.Staged != Done && !s.Attached:
		return Wait{NotAttached}
	case s.Stage && s.Staged == Begun:
		return Stage{"it is not known whether the volume was staged completely"}
	case s.Stage && s.Staged == Absent:
		return Stage{"the first Pod of the node wants the volume"}
	}
	return Publish{"the Pod wants the volume"}
}

// InNeed says whether the node needs the volume attached: what volumesInUse lists.
func (s State) InNeed() bool { return s.Attach && (s.Staged != Absent || s.used()) }

// Idle says whether nothing of the volume is on the node and no Pod wants it.
func (s State) Idle() bool { return s.Staged == Absent && !s.used() }

func (s State) used() bool {
	for _, use := range s.Uses {
		if use.Wanted || use.Published != Absent {
			return true
		}
	}
	return false
}

func (s State) publishedToOther(t Target) bool {
	for other, use := range s.Uses {
		if other.Pod != t.Pod && use.Published != Absent {
			return true
		}
	}
	return false
}
