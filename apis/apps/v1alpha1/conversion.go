package v1alpha1

import (
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// Options are the fields of a Deployment or ReplicaSet that apps/v1 lacks. Those of apps/v1 objects
// are all zero.
//
// +kubebuilder:object:generate=false
type Options struct {
	// Rollback and Partition are of Deployments, PodsToDelete of ReplicaSets.
	Rollback     Rollback
	Partition    *intstr.IntOrString
	PodsToDelete []string
	// Status is what was last reported.
	Status OptionsStatus
}

// OptionsStatus are the fields of the status that apps/v1 lacks.
//
// +kubebuilder:object:generate=false
type OptionsStatus struct {
	Selector            string
	AvailableReplicaSet string
	Rollback            *RollbackStatus
}

// ToApps converts an object of this package to apps/v1, and returns any other as it is. Both share
// memory.
func ToApps(object runtime.Object) (runtime.Object, Options) {
	switch o := object.(type) {
	case *Deployment:
		return o.toApps()
	case *ReplicaSet:
		return o.toApps()
	}
	return object, Options{}
}

// FromApps converts an object of apps/v1, and the fields that its status lacks, to this package.
// The result shares memory with the object, and lacks the other fields that only Options hold.
func FromApps(object runtime.Object, status OptionsStatus) runtime.Object {
	switch o := object.(type) {
	case *appsv1.Deployment:
		return deploymentFromApps(o, status)
	case *appsv1.ReplicaSet:
		return replicaSetFromApps(o, status)
	}
	return object
}

func (d *Deployment) toApps() (*appsv1.Deployment, Options) {
	apps := &appsv1.Deployment{ObjectMeta: d.ObjectMeta, Spec: d.Spec.DeploymentSpec, Status: d.Status.DeploymentStatus}
	apps.Spec.Strategy = d.Spec.Strategy.DeploymentStrategy
	options := Options{
		Rollback: ptr.Deref(d.Spec.Rollback, Rollback{}),
		Status:   OptionsStatus{d.Status.Selector, d.Status.AvailableReplicaSet, d.Status.Rollback},
	}
	if rolling := d.Spec.Strategy.RollingUpdate; rolling != nil {
		apps.Spec.Strategy.RollingUpdate = &rolling.RollingUpdateDeployment
		options.Partition = rolling.Partition
	} else if d.Spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		// As apps/v1 has it. The schema cannot: it would have to know that the type is not
		// Recreate.
		quarter := new(intstr.FromString("25%"))
		apps.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: quarter, MaxUnavailable: quarter}
	}
	return apps, options
}

func deploymentFromApps(apps *appsv1.Deployment, status OptionsStatus) *Deployment {
	d := &Deployment{ObjectMeta: apps.ObjectMeta, Spec: DeploymentSpec{DeploymentSpec: apps.Spec}}
	d.Status = DeploymentStatus{apps.Status, status.Selector, status.AvailableReplicaSet, status.Rollback}
	d.Spec.Strategy.DeploymentStrategy = apps.Spec.Strategy
	if rolling := apps.Spec.Strategy.RollingUpdate; rolling != nil {
		d.Spec.Strategy.RollingUpdate = &RollingUpdateDeployment{RollingUpdateDeployment: *rolling}
	}
	return d
}

func (s *ReplicaSet) toApps() (*appsv1.ReplicaSet, Options) {
	options := Options{Status: OptionsStatus{Selector: s.Status.Selector}}
	if s.Spec.ScaleDown != nil {
		options.PodsToDelete = s.Spec.ScaleDown.PodsToDelete
	}
	return &appsv1.ReplicaSet{ObjectMeta: s.ObjectMeta, Spec: s.Spec.ReplicaSetSpec, Status: s.Status.ReplicaSetStatus}, options
}

func replicaSetFromApps(apps *appsv1.ReplicaSet, status OptionsStatus) *ReplicaSet {
	return &ReplicaSet{
		ObjectMeta: apps.ObjectMeta, Spec: ReplicaSetSpec{ReplicaSetSpec: apps.Spec},
		Status: ReplicaSetStatus{ReplicaSetStatus: apps.Status, Selector: status.Selector},
	}
}
