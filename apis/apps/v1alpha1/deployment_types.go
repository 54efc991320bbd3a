package v1alpha1

import (
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// DeploymentSpec is the wanted state of a Deployment: all of the apps/v1 fields, with the defaults and limits of apps/v1,
// and those that apps/v1 lacks.
//
// +kubebuilder:validation:XValidation:rule="self.selector == oldSelf.selector",message="field is immutable",fieldPath=".selector"
// +kubebuilder:validation:XValidation:rule="(has(self.selector.matchLabels) && size(self.selector.matchLabels) > 0) || (has(self.selector.matchExpressions) && size(self.selector.matchExpressions) > 0)",message="empty selector is invalid for deployment",fieldPath=".selector"
// +kubebuilder:validation:XValidation:rule="!has(self.selector.matchLabels) || self.selector.matchLabels.all(k, has(self.template.metadata) && has(self.template.metadata.labels) && k in self.template.metadata.labels && self.template.metadata.labels[k] == self.selector.matchLabels[k])",message="selector does not match template labels",fieldPath=".template"
// +kubebuilder:validation:XValidation:rule="!has(self.selector.matchExpressions) || self.selector.matchExpressions.all(e, (e.operator in ['In', 'Exists']) == (has(self.template.metadata) && has(self.template.metadata.labels) && e.key in self.template.metadata.labels && (e.operator in ['Exists', 'DoesNotExist'] || !has(e.values) || self.template.metadata.labels[e.key] in e.values)))",message="selector does not match template labels",fieldPath=".template"
// +kubebuilder:validation:XValidation:rule="!has(self.template.spec) || !has(self.template.spec.restartPolicy) || self.template.spec.restartPolicy == 'Always'",message="template.spec.restartPolicy must be Always",fieldPath=".template"
// +kubebuilder:validation:XValidation:rule="!has(self.template.spec) || !has(self.template.spec.activeDeadlineSeconds)",message="template.spec.activeDeadlineSeconds must not be set: a Deployment's Pods have no end",fieldPath=".template"
// +kubebuilder:validation:XValidation:rule="!has(self.progressDeadlineSeconds) || self.progressDeadlineSeconds > (has(self.minReadySeconds) ? self.minReadySeconds : 0)",message="must be greater than minReadySeconds",fieldPath=".progressDeadlineSeconds"
// +kubebuilder:validation:XValidation:rule="!has(self.strategy.type) || self.strategy.type != 'Recreate' || !has(self.strategy.rollingUpdate)",message="may not be specified when strategy type is Recreate",fieldPath=".strategy.rollingUpdate"
// +kubebuilder:validation:XValidation:rule="!has(self.strategy.rollingUpdate) || !has(self.strategy.rollingUpdate.maxSurge) || !has(self.strategy.rollingUpdate.maxUnavailable) || !string(self.strategy.rollingUpdate.maxSurge).matches('^0+%?$') || !string(self.strategy.rollingUpdate.maxUnavailable).matches('^0+%?$')",message="may not be 0 when maxSurge is 0",fieldPath=".strategy.rollingUpdate.maxUnavailable"
// +kubebuilder:validation:XValidation:rule="!has(self.strategy.rollingUpdate) || !has(self.strategy.rollingUpdate.maxSurge) || (type(self.strategy.rollingUpdate.maxSurge) == int ? self.strategy.rollingUpdate.maxSurge >= 0 : self.strategy.rollingUpdate.maxSurge.matches('^[0-9]+%$'))",message="must be a number of Pods or a percentage such as 25%",fieldPath=".strategy.rollingUpdate.maxSurge"
// +kubebuilder:validation:XValidation:rule="!has(self.strategy.rollingUpdate) || !has(self.strategy.rollingUpdate.maxUnavailable) || (type(self.strategy.rollingUpdate.maxUnavailable) == int ? self.strategy.rollingUpdate.maxUnavailable >= 0 : self.strategy.rollingUpdate.maxUnavailable.matches('^([0-9]{1,2}|100)%$'))",message="must be a number of Pods or a percentage of at most 100%",fieldPath=".strategy.rollingUpdate.maxUnavailable"
// +kubebuilder:validation:XValidation:rule="!has(self.strategy.rollingUpdate) || !has(self.strategy.rollingUpdate.partition) || (type(self.strategy.rollingUpdate.partition) == int ? self.strategy.rollingUpdate.partition >= 0 : self.strategy.rollingUpdate.partition.matches('^([0-9]{1,2}|100)%$'))",message="must be a number of Pods or a percentage of at most 100%",fieldPath=".strategy.rollingUpdate.partition"
// +kubebuilder:validation:XValidation:rule="!has(self.rollback) || !has(self.rollback.onCrashLoop) || !has(self.rollback.onCrashLoop.pods) || (type(self.rollback.onCrashLoop.pods) == int ? self.rollback.onCrashLoop.pods >= 1 : self.rollback.onCrashLoop.pods.matches('^([1-9][0-9]?|100)%$'))",message="must be a number of Pods, at least 1, or a percentage of 1% to 100%",fieldPath=".rollback.onCrashLoop.pods"
type DeploymentSpec struct {
	appsv1.DeploymentSpec `json:",inline"`

	// It takes the place of the embedded field of the same name, which knows no partition.
	// +optional
	Strategy DeploymentStrategy `json:"strategy,omitempty,omitzero"`

	// rollback says when a rollout has failed and is rolled back to the last revision of which all Pods were available. A
	// revision that was rolled back is not tried again before the template changes. Without this field no rollout is rolled
	// back.
	// +optional
	Rollback *Rollback `json:"rollback,omitempty"`
}

// DeploymentStrategy is how Pods of an old revision are replaced.
type DeploymentStrategy struct {
	appsv1.DeploymentStrategy `json:",inline"`

	// It takes the place of the embedded field of the same name.
	// +optional
	RollingUpdate *RollingUpdateDeployment `json:"rollingUpdate,omitempty"`
}

// RollingUpdateDeployment bounds a rolling update.
type RollingUpdateDeployment struct {
	appsv1.RollingUpdateDeployment `json:",inline"`

	// partition is how many Pods stay on the old revision until it is lowered: a number, or a percentage of replicas,
	// rounded up. The rollout pauses when all others are of the new revision and available, and the progress deadline
	// does not count meanwhile. A first rollout has nothing old to keep, and a rollback keeps nothing of what failed.
	// Default 0.
	// +optional
	Partition *intstr.IntOrString `json:"partition,omitempty"`
}

// Rollback says when a rollout has failed. Any of its conditions is enough.
type Rollback struct {
	// onProgressDeadlineExceeded rolls back a rollout that made no progress for progressDeadlineSeconds.
	// +optional
	OnProgressDeadlineExceeded bool `json:"onProgressDeadlineExceeded,omitempty"`

	// onCrashLoop rolls back a rollout whose new Pods crash again and again, without waiting for the deadline.
	// +optional
	OnCrashLoop *CrashLoop `json:"onCrashLoop,omitempty"`
}

// CrashLoop is when new Pods count as crashing.
type CrashLoop struct {
	// restarts is how often a container of a Pod that is not ready has to have been restarted. Default 3.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	Restarts int32 `json:"restarts,omitempty"`

	// pods is how many Pods of the new revision have to crash: a number, or a percentage of replicas, rounded up.
	// Default 1.
	// +optional
	// +kubebuilder:default=1
	Pods *intstr.IntOrString `json:"pods,omitempty"`
}

// DeploymentStatus is the observed state of a Deployment, written by the Deployment loop alone.
type DeploymentStatus struct {
	appsv1.DeploymentStatus `json:",inline"`

	// selector is the selector in its text form, as the scale subresource gives it to autoscalers.
	// +optional
	Selector string `json:"selector,omitempty"`

	// availableReplicaSet is the ReplicaSet of the last revision of which all Pods were available: the one that a failed
	// rollout is rolled back to.
	// +optional
	AvailableReplicaSet string `json:"availableReplicaSet,omitempty"`

	// rollback says that the current template was tried and rolled back. It is removed when the template changes.
	// +optional
	Rollback *RollbackStatus `json:"rollback,omitempty"`
}

// Conditions beside those of apps/v1.
const (
	// RolledBack is True while the Pods are, after a failed rollout, of an earlier template than the current one.
	RolledBack appsv1.DeploymentConditionType = "RolledBack"

	// Reconciling and Stalled are those of kstatus (https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus).
	// Both are absent when all is well: Helm's --wait and others take an object of a kind that they do not know for ready
	// unless one of them is True.
	Reconciling appsv1.DeploymentConditionType = "Reconciling"
	Stalled     appsv1.DeploymentConditionType = "Stalled"
)

// Reasons of conditions beside those of apps/v1.
const (
	PartitionReachedReason = "PartitionReached"
	CrashLoopReason        = "CrashLoop"
	RollingOutReason       = "RollingOut"
)

// RollbackStatus says which revision was rolled back, to which one and why.
type RollbackStatus struct {
	// from is the revision that failed, to the revision that took its place.
	From RollbackRevision `json:"from"`
	To   RollbackRevision `json:"to"`
	// reason is ProgressDeadlineExceeded or CrashLoop.
	Reason string `json:"reason"`
	// message says the same in words, with numbers.
	// +optional
	Message string `json:"message,omitempty"`
	// time is when it was decided.
	Time metav1.Time `json:"time"`
}

// RollbackRevision names a revision of a Deployment.
type RollbackRevision struct {
	// revision is its number in the history at the time.
	// +optional
	Revision int64 `json:"revision,omitempty"`
	// replicaSet is its ReplicaSet.
	ReplicaSet string `json:"replicaSet"`
}

// Deployment rolls a Pod template out through ReplicaSets of this group, as an apps/v1 Deployment does through those of
// apps/v1.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector
// +kubebuilder:resource:shortName=fdeploy,categories=all
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=`.status.readyReplicas`,description="Pods with a Ready condition"
// +kubebuilder:printcolumn:name="Desired",type=integer,JSONPath=`.spec.replicas`,description="Wanted Pods"
// +kubebuilder:printcolumn:name="Up-to-date",type=integer,JSONPath=`.status.updatedReplicas`,description="Pods of the current template"
// +kubebuilder:printcolumn:name="Available",type=integer,JSONPath=`.status.availableReplicas`,description="Pods that have been ready for minReadySeconds"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Containers",type=string,priority=1,JSONPath=`.spec.template.spec.containers[*].name`
// +kubebuilder:printcolumn:name="Images",type=string,priority=1,JSONPath=`.spec.template.spec.containers[*].image`
type Deployment struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec DeploymentSpec `json:"spec"`
	// +optional
	Status DeploymentStatus `json:"status,omitempty"`
}

// DeploymentList is a list of Deployments.
//
// +kubebuilder:object:root=true
type DeploymentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Deployment `json:"items"`
}
