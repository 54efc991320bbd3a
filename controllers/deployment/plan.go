package deployment

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/samber/lo"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/pkg/controller"
	"k8s.io/kubernetes/pkg/controller/deployment/util"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers/internal/action"
	"flyball.dev/controllers/internal/controllerref"
)

// State is what the loop observed when it plans.
type State struct {
	Deployment *appsv1.Deployment
	// ReplicaSets are those that name the Deployment as their controller, and all of the namespace
	// that name none.
	ReplicaSets []*appsv1.ReplicaSet
	// Running counts the Pods that have not finished, Crashing the Pods that have the restarts of
	// rollback.onCrashLoop and are not ready, by the UID of their ReplicaSet. Both are nil if not
	// needed.
	Running, Crashing map[types.UID]int
	Options           v1alpha1.Options
	Now               metav1.Time
}

// Create creates the ReplicaSet of the current template.
type Create struct {
	ReplicaSet *appsv1.ReplicaSet
	action.Reason
}

func (c Create) String() string {
	return fmt.Sprintf("create ReplicaSet %s with %d Pods", c.ReplicaSet.Name, *c.ReplicaSet.Spec.Replicas)
}

// Update changes replicas, minReadySeconds or annotations of a ReplicaSet.
type Update struct {
	Before, After *appsv1.ReplicaSet
	action.Reason
}

func (u Update) String() string {
	if from, to := *u.Before.Spec.Replicas, *u.After.Spec.Replicas; from != to {
		return fmt.Sprintf("scale ReplicaSet %s from %d to %d", u.Before.Name, from, to)
	}
	return "update ReplicaSet " + u.Before.Name
}

// Delete deletes an old ReplicaSet without Pods.
type Delete struct {
	ReplicaSet *appsv1.ReplicaSet
	action.Reason
}

func (d Delete) String() string { return "delete ReplicaSet " + d.ReplicaSet.Name }

// SetRevision writes the Deployment's own annotation deployment.kubernetes.io/revision.
type SetRevision struct {
	Revision string
	action.Reason
}

func (s SetRevision) String() string { return "number the template revision " + s.Revision }

// Plan has the actions to carry out, and the status to write after them.
type Plan struct {
	Actions []action.Action
	Status  appsv1.DeploymentStatus
	// OptionsStatus is the part of the status that apps/v1 lacks.
	OptionsStatus v1alpha1.OptionsStatus
	// Next is the time until the Deployment has to be reconciled even without an event; 0 if never.
	Next time.Duration
}

// NewPlan decides the next step of a Deployment. Later steps wait for what the ReplicaSets report.
func NewPlan(s State) Plan {
	selector, err := metav1.LabelSelectorAsSelector(s.Deployment.Spec.Selector)
	if err != nil || selector.Empty() {
		status := *s.Deployment.Status.DeepCopy()
		status.ObservedGeneration = s.Deployment.Generation
		refuse := action.Refuse{Reason: "the selector is empty or invalid: no ReplicaSet can be the Deployment's"}
		return Plan{Status: status, OptionsStatus: s.Options.Status, Actions: []action.Action{refuse}}
	}

	// 1. Orphans that match become the Deployment's; those that no longer match become orphans.
	owned, changes := controllerref.Claim(s.Deployment, selector, s.ReplicaSets)

	// 2. The rollout moves on.
	r := newRollout(s, owned)
	progressing := r.step()
	plan := Plan{Actions: slices.Concat(changes, r.actions())}

	// 3. The status says how far the rollout is after that.
	r.countPods()
	if progressing {
		r.judge()
		r.copyFailure()
		plan.Actions = append(plan.Actions, r.recordOutcome()...)
		if left, counting := r.timeLeft(); counting {
			plan.Next = max(time.Second, left)
		}
	}
	plan.Status, plan.OptionsStatus = r.status, r.optionsStatus
	plan.OptionsStatus.Selector = selector.String()
	return plan
}

// rollout is one Deployment while it is planned.
type rollout struct {
	State
	// replicas is how many Pods are wanted, surge how many more there may be, and unavailable how
	// many fewer may be available.
	replicas, surge, unavailable int32
	// status and optionsStatus, which apps/v1 lacks, are the status as the plan changes it.
	status        appsv1.DeploymentStatus
	optionsStatus v1alpha1.OptionsStatus
	// observed are the Deployment's ReplicaSets by UID. All below are copies that the plan changes.
	observed map[types.UID]*appsv1.ReplicaSet
	// current has the current template, nil if there is none; old are all others, oldest first.
	// After a rollback current is its target, and failed has the current template.
	current, failed *appsv1.ReplicaSet
	old             []*appsv1.ReplicaSet
	// keep is how many Pods the partition keeps on old revisions.
	keep int32
	// changed are the ReplicaSets that the plan changes, in order, and reasons says why, by UID.
	changed   []*appsv1.ReplicaSet
	reasons   map[types.UID][]string
	deletions []action.Action
}

func newRollout(s State, owned []*appsv1.ReplicaSet) *rollout {
	r := &rollout{
		State: s, status: *s.Deployment.Status.DeepCopy(), optionsStatus: s.Options.Status,
		replicas: *s.Deployment.Spec.Replicas,
		surge:    util.MaxSurge(*s.Deployment), unavailable: util.MaxUnavailable(*s.Deployment),
		observed: lo.KeyBy(owned, func(set *appsv1.ReplicaSet) types.UID { return set.UID }),
		reasons:  map[types.UID][]string{},
	}
	sort.Sort(controller.ReplicaSetsByCreationTimestamp(owned))
	for _, set := range owned {
		// If several have the template (a new API version may have changed what equal means), the
		// oldest is current. The hash is not compared: it changes when a release adds a field.
		if r.current == nil && util.EqualIgnoreHash(&set.Spec.Template, &s.Deployment.Spec.Template) {
			r.current = set.DeepCopy()
		} else {
			r.old = append(r.old, set.DeepCopy())
		}
	}
	r.applyRollback()
	return r
}

// step moves the rollout on and reports whether its progress is to be judged.
func (r *rollout) step() bool {
	if r.Deployment.DeletionTimestamp != nil {
		return false // the garbage collector deletes the ReplicaSets
	}
	r.recordPause()
	r.keepHistory()
	if r.Deployment.Spec.Paused {
		r.rescale()
		r.cleanUp()
		return false
	}
	if r.scaled() && r.rescale() {
		return false
	}
	if r.Deployment.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		r.recreate()
	} else {
		r.roll()
	}
	if util.DeploymentComplete(r.Deployment, &r.Deployment.Status) {
		r.cleanUp()
	}
	return true
}

// changef records that the plan changes a ReplicaSet, and why.
func (r *rollout) changef(set *appsv1.ReplicaSet, format string, args ...any) {
	if r.reasons[set.UID] == nil {
		r.changed = append(r.changed, set)
	}
	r.reasons[set.UID] = append(r.reasons[set.UID], fmt.Sprintf(format, args...))
}

// actions returns the changes, one per ReplicaSet in the plan's order, and at last the revision.
func (r *rollout) actions() []action.Action {
	var actions []action.Action
	for _, set := range r.changed {
		reason := action.Reason(strings.Join(r.reasons[set.UID], "; "))
		if before := r.observed[set.UID]; before != nil {
			actions = append(actions, Update{before, set, reason})
		} else {
			actions = append(actions, Create{set, reason})
		}
	}
	actions = append(actions, r.deletions...)
	if r.current == nil || r.optionsStatus.Rollback != nil || r.Deployment.DeletionTimestamp != nil {
		return actions // a ReplicaSet that was rolled back to keeps its own place in the history
	}
	current := r.current.Annotations[util.RevisionAnnotation]
	if r.Deployment.Annotations[util.RevisionAnnotation] != current {
		actions = append(actions, SetRevision{current, "the current template has another revision"})
	}
	return actions
}

// all returns the ReplicaSets, the current one last.
func (r *rollout) all() []*appsv1.ReplicaSet {
	return lo.Compact(append(slices.Clone(r.old), r.current))
}

// size returns how many Pods ReplicaSets want.
func size(sets ...*appsv1.ReplicaSet) int32 { return util.GetReplicaCountForReplicaSets(sets) }

// availableOf leaves out Pods that the ReplicaSet is to delete and still reports.
func availableOf(set *appsv1.ReplicaSet) int32 { return min(set.Status.AvailableReplicas, size(set)) }
