// Package plan decides what the node does next with one of its volumes: stage it once for all
// Pods, publish it to a Pod, unpublish it, unstage it.
//
// Package volumes calls Next until it returns nil, and carries the actions out. Each is recorded on
// disk before, so that Progress of a restarted agent is Begun wherever the former process did
// anything that it did not undo. Actions are idempotent: what is Begun is done again, or undone.
package plan

import (
	"github.com/samber/lo"
	"k8s.io/apimachinery/pkg/types"
)

// Progress of staging a volume, or of publishing it to a Pod.
type Progress int

// The values of Progress.
const (
	Absent Progress = iota // nothing was done, or all of it was undone
	Begun                  // a record exists, but not whether the action ended
	Done                   // the action succeeded in this process
)

// Target is where a volume is published: a volume in the spec of a Pod. The empty Target is where
// it is staged.
type Target struct {
	Pod    types.UID `json:"pod"`
	Volume string    `json:"volume"` // its name in the spec
}

// State of one volume on the node.
type State struct {
	Attach    bool // the attach/detach controller attaches the volume to the node first
	Stage     bool // the volume is staged once per node before it is published to Pods
	Exclusive bool // access mode ReadWriteOncePod
	// InUse and Attached say whether the Node's status lists the volume in volumesInUse and in
	// volumesAttached.
	InUse, Attached bool
	// Wanted are the targets whose Pods are to have the volume.
	Wanted map[Target]bool
	// Progress of publishing, by target, and of staging. What is Absent is left out.
	Progress map[Target]Progress
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
	switch {
	case s.Wanted[t] && s.Progress[t] == Done:
		return nil
	case s.Wanted[t]:
		return s.publish(t)
	case t != (Target{}) && s.Progress[t] != Absent:
		return Unpublish{"the Pod does not use the volume any more"}
	case s.staged() != Absent && !s.used():
		return Unstage{"no Pod uses the volume"}
	}
	return nil
}

func (s State) publish(t Target) Action {
	switch {
	case s.Exclusive && s.publishedToOther(t):
		return Wait{UsedByOther}
	case s.Attach && s.staged() != Done && !s.InUse:
		return Wait{NotReported}
	case s.Attach && s.staged() != Done && !s.Attached:
		return Wait{NotAttached}
	case s.Stage && s.staged() == Begun:
		return Stage{"it is not known whether the volume was staged completely"}
	case s.Stage && s.staged() == Absent:
		return Stage{"the first Pod of the node wants the volume"}
	}
	return Publish{"the Pod wants the volume"}
}

// InNeed says whether the node needs the volume attached: what volumesInUse lists.
func (s State) InNeed() bool { return s.Attach && !s.Idle() }

// Idle says whether nothing of the volume is on the node and no Pod wants it.
func (s State) Idle() bool { return s.staged() == Absent && !s.used() }

// Waiting are the Pods that want the volume and do not have it.
func (s State) Waiting() []types.UID {
	return lo.FilterMapToSlice(s.Wanted, func(t Target, _ bool) (types.UID, bool) { return t.Pod, s.Progress[t] != Done })
}

func (s State) staged() Progress { return s.Progress[Target{}] }

// Targets are those that want the volume or may have it.
func (s State) Targets() []Target {
	return lo.Without(lo.Union(lo.Keys(s.Wanted), lo.Keys(s.Progress)), Target{})
}

func (s State) used() bool { return len(s.Targets()) > 0 }

func (s State) publishedToOther(t Target) bool {
	return lo.SomeBy(lo.Keys(s.Progress), func(other Target) bool { return other != (Target{}) && other.Pod != t.Pod })
}
