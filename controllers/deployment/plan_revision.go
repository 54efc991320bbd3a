package deployment

import (
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/kubernetes/pkg/controller"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
	labelsutil "k8s.io/kubernetes/pkg/util/labels"
	"k8s.io/utils/ptr"
)

// Annotations of ReplicaSets, and the first of Deployments too, that kubectl rollout reads.
const (
	// RevisionAnnotation numbers the templates of a Deployment in the order in which they last became current.
	RevisionAnnotation = "deployment.kubernetes.io/revision"
	// RevisionHistoryAnnotation lists the numbers that a template had before, because it was rolled back to.
	RevisionHistoryAnnotation = "deployment.kubernetes.io/revision-history"
	// DesiredReplicasAnnotation is the size of the Deployment for which the ReplicaSet was last scaled.
	DesiredReplicasAnnotation = "deployment.kubernetes.io/desired-replicas"
	// MaxReplicasAnnotation is that size with surge.
	MaxReplicasAnnotation = "deployment.kubernetes.io/max-replicas"
)

// historyLength bounds RevisionHistoryAnnotation, in bytes.
const historyLength = 2000

// ownAnnotations are not copied from a Deployment to its ReplicaSets: they are the loop's, or say something about the
// Deployment alone.
var ownAnnotations = map[string]bool{
	corev1.LastAppliedConfigAnnotation: true,
	RevisionAnnotation:                 true,
	RevisionHistoryAnnotation:          true,
	DesiredReplicasAnnotation:          true,
	MaxReplicasAnnotation:              true,
	appsv1.DeprecatedRollbackTo:        true,
}

// ensureCurrent plans the ReplicaSet of the current template, unless there is one.
func (r *rollout) ensureCurrent(size int32) {
	if r.current != nil {
		return
	}
	d := r.Deployment
	template := *d.Spec.Template.DeepCopy()
	hash := controller.ComputeHash(&template, d.Status.CollisionCount)
	template.Labels = labelsutil.CloneAndAddLabel(template.Labels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: setName(d.Name, hash), Namespace: d.Namespace, Labels: template.Labels},
		Spec: appsv1.ReplicaSetSpec{
			Replicas:        new(size),
			MinReadySeconds: d.Spec.MinReadySeconds,
			Selector:        labelsutil.CloneSelectorAndAddLabel(d.Spec.Selector, appsv1.DefaultDeploymentUniqueLabelKey, hash),
			Template:        template,
		},
	}
	r.current = &member{want: set}
	r.copyAnnotations(set)
	r.number(set)
	util.SetReplicasAnnotations(set, r.replicas, r.replicas+r.surge)
	r.changef(r.current, "no ReplicaSet has the current template")
	r.noteRevision()
	r.noteProgressing(corev1.ConditionTrue, NewReplicaSetReason, fmt.Sprintf("Created new replica set %q", set.Name))
}

// keepHistory keeps what the current ReplicaSet says of the Deployment up to date.
func (r *rollout) keepHistory() {
	if r.current == nil {
		return
	}
	set := r.current.want
	if set.Spec.MinReadySeconds != r.Deployment.Spec.MinReadySeconds {
		set.Spec.MinReadySeconds = r.Deployment.Spec.MinReadySeconds
		r.changef(r.current, "minReadySeconds changed")
	}
	if r.kept.Rollback != nil {
		return // it stands in for the current one, and keeps its own place in the history
	}
	if r.copyAnnotations(set) {
		r.changef(r.current, "the Deployment's annotations changed")
	}
	if r.number(set) {
		r.changef(r.current, "its template is the current one again")
		if r.Options.Rollback != nil {
			r.noteFound() // what became of the template before it must not count against this one
		}
	}
	r.noteRevision()
	if util.GetDeploymentCondition(r.status, appsv1.DeploymentProgressing) == nil {
		r.noteFound()
	}
}

func (r *rollout) noteFound() {
	r.noteProgressing(corev1.ConditionTrue, FoundNewReplicaSetReason, fmt.Sprintf("Found new replica set %q", r.current.want.Name))
}

func (r *rollout) copyAnnotations(set *appsv1.ReplicaSet) bool {
	changed := false
	for key, value := range r.Deployment.Annotations {
		if !ownAnnotations[key] && annotate(set, key, value) {
			changed = true
		}
	}
	return changed
}

// number gives the current ReplicaSet the highest revision of all, and keeps the one it had.
func (r *rollout) number(set *appsv1.ReplicaSet) bool {
	highest := int64(0)
	for _, m := range r.old {
		highest = max(highest, revision(m.want))
	}
	had, valid := set.Annotations[RevisionAnnotation]
	number, err := strconv.ParseInt(had, 10, 64)
	if valid && err != nil || number > highest {
		return false // not a number: somebody else's, to be left alone
	}
	annotate(set, RevisionAnnotation, strconv.FormatInt(highest+1, 10))
	if valid {
		history := strings.TrimPrefix(set.Annotations[RevisionHistoryAnnotation]+","+had, ",")
		for len(history) > historyLength {
			_, history, _ = strings.Cut(history, ",")
		}
		annotate(set, RevisionHistoryAnnotation, history)
	}
	return true
}

// noteRevision plans that the Deployment carries the revision of its current ReplicaSet.
func (r *rollout) noteRevision() {
	current := r.current.want.Annotations[RevisionAnnotation]
	if r.Deployment.Annotations[RevisionAnnotation] != current {
		r.revision = &SetRevision{current, Reason("the current template has another revision")}
	}
}

// cleanUp removes the oldest ReplicaSets beyond revisionHistoryLimit, of those that are without Pods for certain.
func (r *rollout) cleanUp() {
	limit := ptr.Deref(r.Deployment.Spec.RevisionHistoryLimit, math.MaxInt32)
	var history []*member
	for _, m := range r.old {
		if m.seen.DeletionTimestamp == nil && m.seen.Name != r.kept.AvailableReplicaSet {
			history = append(history, m)
		}
	}
	sort.SliceStable(history, func(i, j int) bool { return revision(history[i].seen) < revision(history[j].seen) })
	for _, m := range history[:max(0, len(history)-int(limit))] {
		if m.size() == 0 && len(m.reasons) == 0 && m.seen.Status.Replicas == 0 && m.seen.Generation <= m.seen.Status.ObservedGeneration {
			m.remove = true
			r.changef(m, "more than %d old ReplicaSets", limit)
		}
	}
}

// revision is 0 for a ReplicaSet without a valid one.
func revision(set *appsv1.ReplicaSet) int64 {
	number, err := strconv.ParseInt(set.Annotations[RevisionAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return number
}

// number reads a number of Pods from an annotation.
func number(set *appsv1.ReplicaSet, annotation string) (int32, bool) {
	value, err := strconv.ParseInt(set.Annotations[annotation], 10, 32)
	return int32(value), err == nil && value >= 0
}

func annotate(set *appsv1.ReplicaSet, key, value string) bool {
	if old, ok := set.Annotations[key]; ok && old == value {
		return false
	}
	if set.Annotations == nil {
		set.Annotations = map[string]string{}
	}
	set.Annotations[key] = value
	return true
}

// setName is the Deployment's name with the hash, cut to what a name may be.
func setName(deployment, hash string) string {
	most := validation.DNS1123SubdomainMaxLength - 1 - len(hash)
	return deployment[:min(len(deployment), most)] + "-" + hash
}
