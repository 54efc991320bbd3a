package plan

import (
	"fmt"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

var first, second = Target{Pod: "a", Volume: "v"}, Target{Pod: "b", Volume: "v"}

func TestNext(t *testing.T) {
	wanted := map[Target]Use{first: {Wanted: true}}
	for name, tc := range map[string]struct {
		reason string
		state  State
		target Target
		want   Action
	}{
		"Plain": {
			reason: "a volume that is neither attached nor staged is published at once",
			state:  State{Uses: wanted}, target: first,
			want: Publish{"the Pod wants the volume"},
		},
		"Published": {
			reason: "nothing is left to do",
			state:  State{Uses: map[Target]Use{first: {Wanted: true, Published: Done}}}, target: first,
		},
		"NotReported": {
			reason: "the attach/detach controller must not detach what a Pod gets",
			state:  State{Attach: true, Attached: true, Stage: true, Uses: wanted}, target: first,
			want: Wait{NotReported},
		},
		"NotAttached": {
			reason: "there is no device yet",
			state:  State{Attach: true, InUse: true, Stage: true, Uses: wanted}, target: first,
			want: Wait{NotAttached},
		},
		"Attached": {
			reason: "staged before any Pod gets it",
			state:  State{Attach: true, InUse: true, Attached: true, Stage: true, Uses: wanted}, target: first,
			want: Stage{"the first Pod of the node wants the volume"},
		},
		"StagedBefore": {
			reason: "after a restart nobody knows whether staging ended",
			state:  State{Stage: true, Staged: Begun, Uses: wanted}, target: first,
			want: Stage{"it is not known whether the volume was staged completely"},
		},
		"Exclusive": {
			reason: "ReadWriteOncePod",
			state:  State{Exclusive: true, Uses: map[Target]Use{first: {Wanted: true}, second: {Published: Begun}}}, target: first,
			want: Wait{UsedByOther},
		},
		"Unpublish": {
			reason: "the Pod ended",
			state:  State{Stage: true, Staged: Done, Uses: map[Target]Use{first: {Published: Done}, second: {Published: Done}}}, target: first,
			want: Unpublish{"the Pod does not use the volume any more"},
		},
		"StillUsed": {
			reason: "the other Pod runs on it",
			state:  State{Stage: true, Staged: Done, Uses: map[Target]Use{second: {Published: Begun}}},
		},
		"StillWanted": {
			reason: "the other Pod is about to get it",
			state:  State{Stage: true, Staged: Done, Uses: map[Target]Use{second: {Wanted: true}}},
		},
		"Unstage": {
			reason: "the last Pod has gone",
			state:  State{Stage: true, Staged: Begun},
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

// node is a node with one volume: what the agent remembers, what is on disk, and what the driver
// has really done.
type node struct {
	t *rapid.T
	State
	stagedRecord bool
	records      map[Target]bool
	staged       bool
	published    map[Target]bool
}

func newNode(t *rapid.T) *node {
	return &node{
		t: t, records: map[Target]bool{}, published: map[Target]bool{},
		State: State{
			Attach: rapid.Bool().Draw(t, "attach"), Stage: rapid.Bool().Draw(t, "stage"),
			Exclusive: rapid.Bool().Draw(t, "exclusive"), Uses: map[Target]Use{},
		},
	}
}

// crash forgets what is not on disk. Pods are wanted again when the API server is read.
func (n *node) crash(wanted map[Target]bool) {
	n.Staged, n.Uses = Absent, map[Target]Use{}
	if n.stagedRecord {
		n.Staged = Begun
	}
	for t := range n.records {
		n.Uses[t] = Use{Published: Begun}
	}
	for t := range wanted {
		n.want(t, true)
	}
}

func (n *node) want(t Target, wanted bool) {
	use := n.Uses[t]
	use.Wanted = wanted
	n.Uses[t] = use
}

func (n *node) progress(t Target, p Progress) {
	use := n.Uses[t]
	use.Published = p
	n.Uses[t] = use
}

// answers of a driver.
const (
	succeeds = iota
	fails    // and has done nothing
	lost     // has done it, but the agent did not get the answer
)

// step carries out the next action for a target, and says whether there was one that can succeed.
func (n *node) step(t Target, answer int) bool {
	switch a := Next(n.State, t).(type) {
	case Stage:
		n.stagedRecord, n.Staged = true, Begun
		if n.Attach && !n.Attached {
			n.t.Fatal("staged what is not attached")
		}
		n.staged = n.staged || answer != fails
		if answer == succeeds {
			n.Staged = Done
		}
	case Publish:
		n.records[t] = true
		n.progress(t, Begun)
		if n.Stage && !n.staged || n.Attach && !n.Attached {
			n.t.Fatal("published what is not there")
		}
		for other := range n.published {
			if n.Exclusive && other.Pod != t.Pod {
				n.t.Fatalf("published to %v beside %v", t, other)
			}
		}
		if answer != fails {
			n.published[t] = true
		}
		if answer == succeeds {
			n.progress(t, Done)
		}
	case Unpublish:
		n.progress(t, Begun)
		if answer != fails {
			delete(n.published, t)
		}
		if answer == succeeds {
			delete(n.records, t)
			delete(n.Uses, t)
		}
	case Unstage:
		n.Staged = Begun
		if len(n.published) > 0 {
			n.t.Fatalf("unstaged below %v", n.published)
		}
		n.staged = n.staged && answer == fails
		if answer == succeeds {
			n.stagedRecord, n.Staged = false, Absent
		}
	default:
		_, waits := a.(Wait)
		if waits && n.Attached && n.InUse && !n.Exclusive {
			n.t.Fatalf("waits for nothing: %v", a)
		}
		return false
	}
	return true
}

// TestConverges drives a volume through Pods that come and go, crashes and answers that fail or
// get lost. In the end every Pod that may have the volume has it, and nothing else is left.
func TestConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, wanted := newNode(t), map[Target]bool{}
		var targets []Target
		for i := range 3 {
			targets = append(targets, Target{Pod: types.UID(fmt.Sprint(i)), Volume: "v"}, Target{Pod: types.UID(fmt.Sprint(i)), Volume: "w"})
		}
		target := rapid.SampledFrom(append(targets, Target{}))
		t.Repeat(map[string]func(*rapid.T){
			"comes": func(t *rapid.T) {
				if pod := target.Draw(t, "target"); pod != (Target{}) {
					wanted[pod] = true
					n.want(pod, true)
				}
			},
			"goes": func(t *rapid.T) {
				pod := target.Draw(t, "target")
				if _, ok := n.Uses[pod]; ok {
					delete(wanted, pod)
					n.want(pod, false)
				}
			},
			"status": func(t *rapid.T) {
				n.InUse = n.InUse || n.InNeed()
				// The controller detaches only what is not in use.
				n.Attached = n.InUse && n.InNeed() || rapid.Bool().Draw(t, "attached") && n.InNeed()
			},
			"crash": func(*rapid.T) { n.crash(wanted) },
			"act":   func(t *rapid.T) { n.step(target.Draw(t, "target"), rapid.IntRange(succeeds, lost).Draw(t, "answer")) },
		})
		if n.InNeed() {
			n.InUse, n.Attached = true, true
		}
		for again := true; again; {
			again = false
			for _, pod := range append(targets, Target{}) {
				again = n.step(pod, succeeds) || again
			}
		}
		if !n.Exclusive {
			if diff := cmp.Diff(maps.Clone(wanted), n.published); diff != "" {
				t.Fatalf("published -want +got:\n%s", diff)
			}
		}
		if len(wanted) > 0 && len(n.published) == 0 {
			t.Fatal("no Pod has the volume")
		}
		if n.staged != (n.Stage && len(wanted) > 0) || n.stagedRecord != n.staged || len(n.records) != len(n.published) {
			t.Fatalf("staged %v with %d Pods; records %v, %v", n.staged, len(wanted), n.stagedRecord, n.records)
		}
		if n.Idle() != (len(wanted) == 0) {
			t.Fatalf("Idle() = %v", n.Idle())
		}
	})
}
