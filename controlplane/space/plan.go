package space

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
)

// The thresholds of free space, in bytes and in inodes. Enough is twice a file of etcd's log: one
// is always allocated in advance.
const (
	Enough = 128 << 20
	scarce = 64 << 20
	gone   = 4 << 20

	enoughInodes, scarceInodes, goneInodes = 2000, 1000, 100
)

// leasesFirst is how long only Leases are admitted when there is space again: a node agent renews
// its own every ten seconds, and the node controller must not take a node for dead because its
// renewals were refused.
const leasesFirst = 12 * time.Second

// Free is the space that a file system has left for this process.
type Free struct {
	Bytes uint64
	// Inodes are free, of Total. Both are zero where the file system creates them as it needs them.
	Inodes, Total uint64
}

func (f Free) below(bytes, inodes uint64) bool {
	return f.Bytes < bytes || f.Total > 0 && f.Inodes < inodes
}

// Level says which writes are admitted.
type Level int

// The levels, from everything to nothing.
const (
	All       Level = iota // there is space
	Essential              // those that free space or report status
	Leases                 // there was no space until a moment ago
	None
)

// State is the present level, and since when.
type State struct {
	Level Level
	Since time.Time
}

// Next returns the state for the free space. Writes are admitted again at twice the space at which
// they are refused, so that the first of them do not change the level back.
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

// Write is a request with its user, verb and resource, in the terms of RBAC.
type Write struct{ User, Verb, Group, Resource, Subresource string }

// Admits reports whether the write is admitted.
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
// patching an object: a deleted object stays until they have done so. They make few other updates.
var finalizers = sets.New(
	"generic-garbage-collector", "job-controller", "persistent-volume-binder", "podgroup-protection-controller",
	"pv-protection-controller", "pvc-protection-controller", "resource-claim-controller", "service-cidrs-controller",
	"volumeattributesclass-protection-controller",
)

// finalizes reports whether the write may complete a deletion. The request does not say whether the
// object is being deleted, and a patch does not have its finalizers.
func (w Write) finalizes() bool {
	name, ok := strings.CutPrefix(w.User, "system:serviceaccount:kube-system:")
	return ok && finalizers.Has(name) && w.Subresource == "" && (w.Verb == "update" || w.Verb == "patch")
}

// stored reports whether the write reaches etcd.
func (w Write) stored() bool {
	return slices.Contains([]string{"create", "update", "patch", "delete", "deletecollection"}, w.Verb) &&
		!slices.Contains([]string{"exec", "attach", "portforward", "proxy", "token"}, w.Subresource) &&
		!strings.HasSuffix(w.Resource, "reviews") // token and access reviews are not stored
}

// Error says how much space is free, how much is needed, and what to do.
type Error struct {
	Dir  string
	Free Free
	// Err is why less than the free space can be written, for example a quota. Optional.
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
	return fmt.Sprintf("no space left on the file system of %s: %s; Pods continue to run, but new writes are refused; free some space, and Flyball continues by itself", e.Dir, what)
}

func mebibytes(n uint64) string { return fmt.Sprintf("%d MiB", n>>20) }
