package action

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/samber/lo"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

var total = promauto.With(metrics.Registry).NewCounterVec(prometheus.CounterOpts{
	Name: "flyball_controller_actions_total",
	Help: "Planned actions that were carried out, by loop, API group, action and result (done or failed).",
}, []string{"loop", "group", "action", "result"})

// Count counts an action that a loop carried out for an API group, or failed to.
func Count(loop, group string, action Action, err error) {
	total.WithLabelValues(loop, group, strings.ToLower(typeName(action)), lo.Ternary(err == nil, "done", "failed")).Inc()
}
