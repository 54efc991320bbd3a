package replicaset

import (
	"github.com/prometheus/client_golang/prometheus"

	"flyball.dev/controllers/internal/actions"
)

// newMetrics counts what the loop does for one API group.
func newMetrics(registry prometheus.Registerer, group string) metrics {
	return metrics{actions.NewCounter(registry, "replicaset", group)}
}

type metrics struct{ *actions.Counter }

func (m metrics) count(action Action, err error) {
	switch a := action.(type) {
	case Adopt:
		m.Add("adopt", 1, err)
	case Release:
		m.Add("release", 1, err)
	case Create:
		m.Add("create", a.Count, err)
	case Delete:
		m.Add("delete", len(a.Pods), err)
	case Refuse:
		m.Add("refuse", 1, err)
	}
}
