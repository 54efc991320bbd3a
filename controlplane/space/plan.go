package space

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
)

// What must be free, in bytes and in inodes. Enough is that of a new file of etcd's log, twice: there is always one ahead.
const (
	Enough = 128 << 20
	scarce = 64 << 20
	gone   = 4 << 20

	enoughInodes, scarceInodes, goneInodes = 2000, 1000, 100
)

// leasesFirst is how long nothing but Leases is written when there is space again: a node agent renews
// its own every ten seconds, and the node controller must not take a node for dead because its renewals
// were refused.
const leasesFirst = 12 * time.Second

// Free is what a file system has left for us.
type Free struct {
	Bytes uint64
	// Inodes that are left, of Total; zero of zero where the file system makes them as it needs them.
	Inodes, Total uint64
}

func (f Free) below(bytes, inodes uint64) bool {
	return f.Bytes < bytes || f.Total > 0 && f.Inodes < inodes
}

// Level says what is written.
type Level int

// The levels, from everything to nothing.
const (
	// All is written: there is space.
	All Level = iota
	// Essential is what frees space, and what reports what runs.
	Essential
	// Leases are written and nothing else yet, since there was no space until a moment ago.
	Leases
	// None: nothing is written.
	None
)

// State is the present level and since when it is.
type State struct {
	Level Level
	Since time.Time
}

// Next is the state after the file system was asked. Writing goes on at twice the space at which it stops, so that the first
// writes do not stop it again.
func (s State) Next(free Free, now time.Time) State {
	level := All
	switch {
	case free.below(gone, goneInodes):
		level = None
	case s.Level == None, s.Level == Leases && now.Sub(s.Since) < leasesFirst:
		level = Leases
	case free.below(scarce, scarceInodes), s.Level != All && free.below(Enough, enoughInodes):
		level = Essential
	}
	if level == s.Level {
		return s
	}
	return State{Level: level, Since: now}
}

// Write is a request that changes something: who makes it, its verb and its object, in the terms of
// RBAC.
type Write struct{ User, Verb, Group, Resource, Subresource string }

// Admits reports whether the write is carried out.
func (l Level) Admits(w Write) bool {
	if l == All || !w.stored() {
		return true
	}
	lease := w.Group == "coordination.k8s.io" && w.Resource == "leases"
	switch l {
	case Leases:
		return lease
	case Essential:
		follow := w.Group == "discovery.k8s.io" && w.Resource == "endpointslices" && w.Verb == "update"
		return lease || follow || strings.HasPrefix(w.Verb, "delete") ||
			w.Subresource == "status" || w.Subresource == "eviction" || w.Subresource == "finalize" || w.finalizes()
	}
	return false
}

// finalizers are the controllers of kube-controller-manager that remove finalizers by updating or
// patching the object: what was deleted stays until they have. The other updates that they make are
// few.
var finalizers = sets.New(
	"generic-garbage-collector", "job-controller", "persistent-volume-binder", "podgroup-protection-controller",
	"pv-protection-controller", "pvc-protection-controller", "resource-claim-controller", "service-cidrs-controller",
	"volumeattributesclass-protection-controller",
)

// finalizes reports whether the write may be what ends a deletion. Whether an object is being deleted
// is not in the request, and neither are its finalizers if it is a patch.
func (w Write) finalizes() bool {
	name, ok := strings.CutPrefix(w.User, "system:serviceaccount:kube-system:")
	return ok && finalizers.Has(name) && w.Subresource == "" && (w.Verb == "update" || w.Verb == "patch")
}

// stored reports whether anything reaches etcd.
func (w Write) stored() bool {
	switch w.Verb {
	case "create", "update", "patch", "delete", "deletecollection":
	default:
		return false
	}
	switch w.Subresource {
	case "exec", "attach", "portforward", "proxy", "token":
		return false
	}
	return !strings.HasSuffix(w.Resource, "reviews") // token reviews, access reviews and their kin are answered and forgotten
}

// Error says that there is no space, how much is needed and what to do.
type Error struct {
	Dir  string
	Free Free
	// Err is why less than what is free can be written, if that is so: a quota, for example.
	Err error
}

// Unwrap returns the file system's own error, or nil.
func (e *Error) Unwrap() error { return e.Err }

func (e *Error) Error() string {
	what := fmt.Sprintf("%s free, %s needed", mebibytes(e.Free.Bytes), mebibytes(Enough))
	if !e.Free.below(Enough, 0) {
		what = fmt.Sprintf("%d inodes free, %d needed", e.Free.Inodes, enoughInodes)
	}
	if e.Err != nil {
		what = e.Err.Error()
	}
	return fmt.Sprintf("no space left on the file system of %s: %s; Pods run on, but nothing new is written until there is; free some, and Flyball goes on by itself", e.Dir, what)
}

func mebibytes(n uint64) string { return fmt.Sprintf("%d MiB", n>>20) }
