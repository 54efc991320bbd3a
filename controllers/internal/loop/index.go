package loop

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// ControlledBy selects what an owner with this UID controls.
func ControlledBy(uid types.UID) client.ListOption { return client.MatchingFields{Index: string(uid)} }

// Orphans selects what nobody controls.
func Orphans() client.ListOption { return client.MatchingFields{Index: nobody} }

// IsOf says whether a reference names an object of a kind, in whatever version of its group.
func IsOf(ref *metav1.OwnerReference, kind schema.GroupVersionKind) bool {
	return ref != nil && ref.Kind == kind.Kind && strings.HasPrefix(ref.APIVersion, kind.Group+"/")
}
