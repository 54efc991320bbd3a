package plan

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var first, second = Target{Pod: "a", Volume: "v"}, Target{Pod: "b", Volume: "v"}

func TestNext(t *testing.T) {
	wanted := map[Target]bool{first: true}
	for name, tc := range map[string]struct {
		reason string
		state  State
		target Target
		want   Action
	}{
		"Plain": {
			reason: "a volume that is neither attached nor staged is published at once",
			state:  State{Wanted: wanted}, target: first,
			want: Publish{"the Pod wants the volume"},
		},
		"Published": {
			reason: "nothing is left to do",
			state:  State{Wanted: wanted, Progress: map[Target]Progress{first: Done}}, target: first,
		},
		"NotReported": {
			reason: "the attach/detach controller must not detach what a Pod gets",
			state:  State{Attach: true, Attached: true, Stage: true, Wanted: wanted}, target: first,
			want: Wait{NotReported},
		},
		"NotAttached": {
			reason: "there is no device yet",
			state:  State{Attach: true, InUse: true, Stage: true, Wanted: wanted}, target: first,
			want: Wait{NotAttached},
		},
		"Attached": {
			reason: "staged before any Pod gets it",
			state:  State{Attach: true, InUse: true, Attached: true, Stage: true, Wanted: wanted}, target: first,
			want: Stage{"the first Pod of the node wants the volume"},
		},
		"StagedBefore": {
			reason: "after a restart nobody knows whether staging ended",
			state:  State{Stage: true, Wanted: wanted, Progress: map[Target]Progress{{}: Begun}}, target: first,
			want: Stage{"it is not known whether the volume was staged completely"},
		},
		"Exclusive": {
			reason: "ReadWriteOncePod",
			state:  State{Exclusive: true, Wanted: wanted, Progress: map[Target]Progress{second: Begun}}, target: first,
			want: Wait{UsedByOther},
		},
		"Unpublish": {
			reason: "the Pod ended",
			state:  State{Stage: true, Progress: map[Target]Progress{{}: Done, first: Done, second: Done}}, target: first,
			want: Unpublish{"the Pod does not use the volume any more"},
		},
		"StillUsed": {
			reason: "the other Pod runs on it",
			state:  State{Stage: true, Progress: map[Target]Progress{{}: Done, second: Begun}},
		},
		"StillWanted": {
			reason: "the other Pod is about to get it",
			state:  State{Stage: true, Progress: map[Target]Progress{{}: Done}, Wanted: map[Target]bool{second: true}},
		},
		"Unstage": {
			reason: "the last Pod has gone",
			state:  State{Stage: true, Progress: map[Target]Progress{{}: Begun}},
			want:   Unstage{"no Pod uses the volume"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Next(tc.state, tc.target)); diff != "" {
				t.Errorf("%s\nNext() -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

// node is a node with one volume: what the agent remembers, what is on disk, and what the driver has
// really done. The empty Target stands for staging everywhere.
type node struct {
	t *rapid.T
	State
	records, real map[Target]bool
}

func newNode(t *rapid.T) *node {
	return &node{
		t: t, records: map[Target]bool{}, real: map[Target]bool{},
		State: State{
			Attach: rapid.Bool().Draw(t, "attach"), Stage: rapid.Bool().Draw(t, "stage"), Exclusive: rapid.Bool().Draw(t, "exclusive"),
			Wanted: map[Target]bool{}, Progress: map[Target]Progress{},
		},
	}
}

// crash forgets what is not on disk. Pods are wanted again when the API server is read.
func (n *node) crash() {
	clear(n.Progress)
	for t := range n.records {
		n.Progress[t] = Begun
	}
}

// published are the targets that really have the volume.
func (n *node) published() map[Target]bool {
	published := maps.Clone(n.real)
	delete(published, Target{})
	return published
}

// answers of a driver.
const (
	succeeds = iota
	fails    // and has done nothing
	lost     // has done it, but the agent did not get the answer
)

// step carries out the next action for a target, and says whether there was one.
func (n *node) step(t Target, answer int) bool {
	a := Next(n.State, t)
	done := true // rather than undone
	switch a.(type) {
	case Stage:
		t = Target{}
		if n.Attach && !n.Attached {
			n.t.Fatal("staged what is not attached")
		}
	case Publish:
		if n.Stage && !n.real[Target{}] || n.Attach && !n.Attached {
			n.t.Fatal("published what is not there")
		}
		for other := range n.published() {
			if n.Exclusive && other.Pod != t.Pod {
				n.t.Fatalf("published to %v beside %v", t, other)
			}
		}
	case Unpublish:
		done = false
	case Unstage:
		t, done = Target{}, false
		if len(n.published()) > 0 {
			n.t.Fatalf("unstaged below %v", n.published())
		}
	default:
		if _, waits := a.(Wait); waits && n.Attached && n.InUse && !n.Exclusive {
			n.t.Fatalf("waits for nothing: %v", a)
		}
		return false
	}
	n.records[t], n.Progress[t] = true, Begun
	if answer != fails {
		if n.real[t] = done; !done {
			delete(n.real, t)
		}
	}
	if answer == succeeds {
		if n.Progress[t] = Done; !done {
			delete(n.Progress, t)
			delete(n.records, t)
		}
	}
	return true
}

// TestConverges drives a volume through Pods that come and go, crashes and answers that fail or
// get lost. In the end every Pod that may have the volume has it, and nothing else is left.
func TestConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := newNode(t)
		targets := []Target{first, second, {Pod: "b", Volume: "w"}}
		target := rapid.SampledFrom(targets)
		t.Repeat(map[string]func(*rapid.T){
			"comes":  func(t *rapid.T) { n.Wanted[target.Draw(t, "target")] = true },
			"goes":   func(t *rapid.T) { delete(n.Wanted, target.Draw(t, "target")) },
			"report": func(*rapid.T) { n.InUse = n.InNeed() },
			"attach": func(*rapid.T) { n.Attached = n.InNeed() },
			"detach": func(t *rapid.T) {
				if n.Attached = n.Attached && n.InUse; n.Attach && !n.Attached && len(n.real) > 0 {
					t.Fatalf("detached below %v", n.real)
				}
			},
			"crash":   func(*rapid.T) { n.crash() },
			"act":     func(t *rapid.T) { n.step(target.Draw(t, "target"), rapid.IntRange(succeeds, lost).Draw(t, "answer")) },
			"unstage": func(t *rapid.T) { n.step(Target{}, rapid.IntRange(succeeds, lost).Draw(t, "answer")) },
		})
		if n.InNeed() {
			n.InUse, n.Attached = true, true
		}
		for again, rounds := true, 0; again; rounds++ {
			if again = false; rounds > 10 {
				t.Fatal("it does not converge")
			}
			for _, pod := range append(targets, Target{}) {
				again = n.step(pod, succeeds) || again
			}
		}
		if diff := cmp.Diff(n.Wanted, n.published()); diff != "" && !n.Exclusive {
			t.Fatalf("published -want +got:\n%s", diff)
		}
		if len(n.Wanted) > 0 && len(n.published()) == 0 {
			t.Fatal("no Pod has the volume")
		}
		if n.real[Target{}] != (n.Stage && len(n.Wanted) > 0) {
			t.Fatalf("staged %v with %d Pods", n.real[Target{}], len(n.Wanted))
		}
		if diff := cmp.Diff(n.real, n.records); diff != "" {
			t.Fatalf("records -want +got:\n%s", diff)
		}
		if n.Idle() != (len(n.Wanted) == 0) {
			t.Fatalf("Idle() = %v", n.Idle())
		}
	})
}
