// Package v1alpha1 holds the Go types of apps.flyball.dev/v1alpha1: Deployment and ReplicaSet.
//
// Both are their apps/v1 namesakes under a group of ours: spec and status embed upstream's types inline, so that a
// manifest moves over by its apiVersion alone and a new upstream field needs nothing here. What they add: rollback,
// strategy.rollingUpdate.partition and scaleDown in the spec, and in the status what came of them. The kinds exist so that
// Flyball's controllers can be installed in a cluster whose apps/v1 kinds other controllers reconcile, and so that they can
// grow fields that apps/v1 will not have; a field is added, never changed or left out.
//
// conversion.go converts them from and to apps/v1. Their loops are in controllers/, the one writer of every status. The CRDs
// in config/crd/bases are generated from this package, with the defaults of apps/v1 put in by hack/crdschema.
//
// +kubebuilder:object:generate=true
// +groupName=apps.flyball.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	// GroupVersion is the group and version of the kinds in this package.
	GroupVersion = schema.GroupVersion{Group: "apps.flyball.dev", Version: "v1alpha1"}

	// SchemeBuilder collects the kinds of this package.
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme makes the kinds of this package known to a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &Deployment{}, &DeploymentList{}, &ReplicaSet{}, &ReplicaSetList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
