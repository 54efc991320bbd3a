package v1alpha1

import (
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ReplicaSetSpec is the wanted state of a ReplicaSet: all of the apps/v1 fields, with the defaults and limits of apps/v1,
// and those that apps/v1 lacks.
//
// +kubebuilder:validation:XValidation:rule="self.selector == oldSelf.selector",message="field is immutable",fieldPath=".selector"
// +kubebuilder:validation:XValidation:rule="(has(self.selector.matchLabels) && size(self.selector.matchLabels) > 0) || (has(self.selector.matchExpressions) && size(self.selector.matchExpressions) > 0)",message="empty selector is invalid for replicaset",fieldPath=".selector"
// +kubebuilder:validation:XValidation:rule="!has(self.selector.matchLabels) || self.selector.matchLabels.all(k, has(self.template) && has(self.template.metadata) && has(self.template.metadata.labels) && k in self.template.metadata.labels && self.template.metadata.labels[k] == self.selector.matchLabels[k])",message="selector does not match template labels",fieldPath=".template"
// +kubebuilder:validation:XValidation:rule="!has(self.template) || !has(self.template.spec) || !has(self.template.spec.restartPolicy) || self.template.spec.restartPolicy == 'Always'",message="template.spec.restartPolicy must be Always",fieldPath=".template"
// +kubebuilder:validation:XValidation:rule="!has(self.selector.matchExpressions) || self.selector.matchExpressions.all(e, (e.operator in ['In', 'Exists']) == (has(self.template) && has(self.template.metadata) && has(self.template.metadata.labels) && e.key in self.template.metadata.labels && (e.operator in ['Exists', 'DoesNotExist'] || !has(e.values) || self.template.metadata.labels[e.key] in e.values)))",message="selector does not match template labels",fieldPath=".template"
// +kubebuilder:validation:XValidation:rule="!has(self.template) || !has(self.template.spec) || !has(self.template.spec.activeDeadlineSeconds)",message="template.spec.activeDeadlineSeconds must not be set: a ReplicaSet's Pods have no end",fieldPath=".template"
type ReplicaSetSpec struct {
	appsv1.ReplicaSetSpec `json:",inline"`

	// scaleDown says which Pods are deleted when replicas is lowered.
	// +optional
	ScaleDown *ScaleDown `json:"scaleDown,omitempty"`
}

// ScaleDown says which Pods are deleted when a ReplicaSet has more Pods than it wants.
type ScaleDown struct {
	// podsToDelete are the names of Pods that go before all others, whatever their state and their annotation
	// controller.kubernetes.io/pod-deletion-cost say. Names of Pods that are not the ReplicaSet's mean nothing, and no Pod
	// is deleted for being named while there are not too many.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:MinLength=1
	PodsToDelete []string `json:"podsToDelete,omitempty"`
}

// ReplicaSetStatus is the observed state of a ReplicaSet, written by the ReplicaSet loop alone.
type ReplicaSetStatus struct {
	appsv1.ReplicaSetStatus `json:",inline"`

	// selector is the selector in its text form, as the scale subresource gives it to autoscalers.
	// +optional
	Selector string `json:"selector,omitempty"`
}

// ReplicaSet keeps a number of Pods of one template alive, as an apps/v1 ReplicaSet does.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector
// +kubebuilder:resource:shortName=frs,categories=all
// +kubebuilder:printcolumn:name="Desired",type=integer,JSONPath=`.spec.replicas`,description="Wanted Pods"
// +kubebuilder:printcolumn:name="Current",type=integer,JSONPath=`.status.replicas`,description="Pods that exist and are not being deleted"
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=`.status.readyReplicas`,description="Pods with a Ready condition"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Containers",type=string,priority=1,JSONPath=`.spec.template.spec.containers[*].name`
// +kubebuilder:printcolumn:name="Images",type=string,priority=1,JSONPath=`.spec.template.spec.containers[*].image`
type ReplicaSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec ReplicaSetSpec `json:"spec"`
	// +optional
	Status ReplicaSetStatus `json:"status,omitempty"`
}

// ReplicaSetList is a list of ReplicaSets.
//
// +kubebuilder:object:root=true
type ReplicaSetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ReplicaSet `json:"items"`
}
