package deployment

import (
	"github.com/prometheus/client_golang/prometheus"

	"flyball.dev/controllers/internal/actions"
)

// newMetrics counts what the loop does for one API group.
func newMetrics(registry prometheus.Registerer, group string) metrics {
	return metrics{actions.NewCounter(registry, "deployment", group)}
}

type metrics struct{ *actions.Counter }

func (m metrics) count(action Action, err error) {
	switch action.(type) {
	case Adopt:
		m.Add("adopt", 1, err)
	case Release:
		m.Add("release", 1, err)
	case Create:
		m.Add("create", 1, err)
	case Update:
		m.Add("update", 1, err)
	case Delete:
		m.Add("delete", 1, err)
	case SetRevision:
		m.Add("set-revision", 1, err)
	case Refuse:
		m.Add("refuse", 1, err)
	}
}
