// Package owner decides who controls an object: which Pods are a ReplicaSet's, which ReplicaSets a Deployment's.
//
// The ControllerRef decides, not labels. Labels decide only what may be adopted (an orphan that the selector matches) and
// what is to be released (an own object that the selector no longer matches). Deciding is pure and here; the loops carry
// it out. An object whose ControllerRef names anybody else, of whatever kind or group, is never touched.
package owner

import (
	"strings"

	"github.com/samber/lo"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Index is the cache index by which objects are found by their controller's UID.
const Index = "controllerUID"

// nobody is the key in Index of objects without a controller.
const nobody = "-"

// Keys are an object's keys in Index.
func Keys(object client.Object) []string {
	if ref := metav1.GetControllerOfNoCopy(object); ref != nil {
		return []string{string(ref.UID)}
	}
	return []string{nobody}
}

// ControlledBy selects what an owner with this UID controls, Orphans what nobody does.
func ControlledBy(uid types.UID) client.ListOption { return client.MatchingFields{Index: string(uid)} }

// Orphans selects what nobody controls.
func Orphans() client.ListOption { return client.MatchingFields{Index: nobody} }

// Is says whether a reference names an object of a kind, in whatever version of its group.
func Is(ref *metav1.OwnerReference, kind schema.GroupVersionKind) bool {
	return ref != nil && ref.Kind == kind.Kind && strings.HasPrefix(ref.APIVersion, kind.Group+"/")
}

// Claims is what an owner has to do with a set of objects.
type Claims[T client.Object] struct {
	// Owned are the owner's, those in Adopt included.
	Owned []T
	// Adopt are orphans that the owner has to take, Release its own that it has to let go.
	Adopt, Release []T
}

// Claim sorts objects of the owner's namespace by what they are to the owner. An owner that is being deleted keeps what
// it has and takes nothing.
func Claim[T client.Object](owner metav1.Object, selector labels.Selector, objects []T) Claims[T] {
	var claims Claims[T]
	leaving := owner.GetDeletionTimestamp() != nil
	for _, object := range objects {
		ref := metav1.GetControllerOfNoCopy(object)
		matches := selector.Matches(labels.Set(object.GetLabels()))
		switch {
		case ref != nil && ref.UID != owner.GetUID():
		case ref != nil && matches:
			claims.Owned = append(claims.Owned, object)
		case ref != nil && !leaving:
			claims.Release = append(claims.Release, object)
		case ref == nil && matches && !leaving && object.GetDeletionTimestamp() == nil:
			claims.Owned = append(claims.Owned, object)
			claims.Adopt = append(claims.Adopt, object)
		}
	}
	return claims
}

// Adopted returns object's owner references with owner as the controller.
func Adopted(object, owner metav1.Object, kind schema.GroupVersionKind) []metav1.OwnerReference {
	return append(Released(object, owner), *metav1.NewControllerRef(owner, kind))
}

// Released returns object's owner references without owner.
func Released(object, owner metav1.Object) []metav1.OwnerReference {
	return lo.Reject(object.GetOwnerReferences(), func(ref metav1.OwnerReference, _ int) bool { return ref.UID == owner.GetUID() })
}
