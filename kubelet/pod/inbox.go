package pod

import (
	"cmp"
	"sync"

	v1 "k8s.io/api/core/v1"

	"flyball.dev/internal/trigger"
	"flyball.dev/kubelet/pod/plan"
)

// update is news for a worker. The zero value says nothing but that the worker has to sync.
type update struct {
	// pod is the Pod as the source has it now, deleted the last state of a Pod that the source no
	// longer has; mirror and mirrorDeleted are the same of the mirror Pod of a static Pod.
	pod, deleted, mirror, mirrorDeleted *v1.Pod

	runtime     bool // the runtime has changed
	retry       bool // what failed can succeed now
	termination *plan.Termination
	results     []result
}

// merge adds a later update. Of each object only the newest state counts.
func (u *update) merge(later update) {
	if later.pod != nil || later.deleted != nil {
		u.pod, u.deleted = later.pod, later.deleted
	}
	u.termination = cmp.Or(u.termination, later.termination) // the first decision stays
	if later.mirror != nil || later.mirrorDeleted != nil {
		u.mirror, u.mirrorDeleted = later.mirror, later.mirrorDeleted
	}
	u.runtime = u.runtime || later.runtime
	u.retry = u.retry || later.retry
	u.results = append(u.results, later.results...)
}

// inbox collects the updates for one worker from one sync to the next.
type inbox struct {
	wake trigger.Trigger // set while the inbox is not empty

	mu      sync.Mutex
	pending update
	filled  bool
}

func newInbox() *inbox { return &inbox{wake: trigger.New()} }

// put adds an update and wakes the worker. It does not block.
func (i *inbox) put(u update) {
	i.mu.Lock()
	i.pending.merge(u)
	i.filled = true
	i.mu.Unlock()
	i.wake.Set()
}

func (i *inbox) take() update {
	i.mu.Lock()
	defer i.mu.Unlock()
	u := i.pending
	i.pending, i.filled = update{}, false
	return u
}

func (i *inbox) empty() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return !i.filled
}
