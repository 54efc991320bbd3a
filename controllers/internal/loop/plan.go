package loop

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Action is one step of a plan: a small value of a type of its own, with a reason in words.
type Action interface{ Why() string }

// Reason is embedded by all actions.
type Reason string

// Why implements Action.
func (r Reason) Why() string { return string(r) }

// Adopt makes the owner the controller of an object that has none.
type Adopt struct {
	Object metav1.Object
	Reason
}

// Release gives up control of an object.
type Release struct {
	Object metav1.Object
	Reason
}

// Refuse does nothing, because whatever could be done would be wrong.
type Refuse struct {
	Reason
}

// What is one of these actions in words.
func What(action Action) string {
	switch a := action.(type) {
	case Adopt:
		return "adopt " + typeName(a.Object) + " " + a.Object.GetName()
	case Release:
		return "release " + typeName(a.Object) + " " + a.Object.GetName()
	}
	return "do nothing"
}

// typeName is the name of a value's type without its package.
func typeName(value any) string {
	name := fmt.Sprintf("%T", value)
	return name[strings.LastIndex(name, ".")+1:]
}

// Claim decides which objects of an owner's namespace are the owner's, and what has to change hands for that: an orphan
// that the selector matches is adopted, an own object that the selector no longer matches is released.
//
// The ControllerRef decides, not labels: an object whose ControllerRef names anybody else, of whatever kind or group, is
// never touched. An owner that is being deleted keeps what it has and takes nothing.
func Claim[C metav1.Object](owner metav1.Object, selector labels.Selector, objects []C) (owned []C, actions []Action) {
	leaving := owner.GetDeletionTimestamp() != nil
	for _, object := range objects {
		ref := metav1.GetControllerOfNoCopy(object)
		matches := selector.Matches(labels.Set(object.GetLabels()))
		switch {
		case ref != nil && ref.UID != owner.GetUID():
		case ref != nil && matches:
			owned = append(owned, object)
		case ref != nil && !leaving:
			actions = append(actions, Release{object, "its labels no longer match the selector"})
		case ref == nil && matches && !leaving && object.GetDeletionTimestamp() == nil:
			owned = append(owned, object)
			actions = append(actions, Adopt{object, "the selector matches it and nobody controls it"})
		}
	}
	return owned, actions
}
