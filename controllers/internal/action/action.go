// Package action is what all plans have in common: steps with a reason, and their metric.
package action

import (
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/samber/lo"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// Action is one step of a plan: a small value of a type of its own, with a reason in words.
type Action interface {
	String() string
	Why() string
}

// Reason is embedded by all actions.
type Reason string

// Why implements Action.
func (r Reason) Why() string { return string(r) }

// Adopt makes the owner the controller of an object that has none.
type Adopt struct {
	Object metav1.Object
	Reason
}

func (a Adopt) String() string { return "adopt " + typeName(a.Object) + " " + a.Object.GetName() }

// Release gives up control of an object.
type Release struct {
	Object metav1.Object
	Reason
}

func (r Release) String() string { return "release " + typeName(r.Object) + " " + r.Object.GetName() }

// Refuse does nothing, because any action would be wrong.
type Refuse struct{ Reason }

func (Refuse) String() string { return "do nothing" }

var total = promauto.With(metrics.Registry).NewCounterVec(prometheus.CounterOpts{
	Name: "flyball_controller_actions_total",
	Help: "Planned actions that were carried out, by loop, API group, action and result (done or failed).",
}, []string{"loop", "group", "action", "result"})

// Count counts an action that a loop carried out for an API group, or failed to.
func Count(loop, group string, action Action, err error) {
	total.WithLabelValues(loop, group, strings.ToLower(typeName(action)), lo.Ternary(err == nil, "done", "failed")).Inc()
}

// typeName is the name of a value's type without its package.
func typeName(value any) string {
	name := fmt.Sprintf("%T", value)
	return name[strings.LastIndex(name, ".")+1:]
}
