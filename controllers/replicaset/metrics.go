package replicaset

import (
	"github.com/prometheus/client_golang/prometheus"

	"flyball.dev/controllers/internal/actions"
)

// newMetrics counts the loop's actions for one API group.
func newMetrics(registry prometheus.Registerer, group string) actions.Counter {
	return actions.NewCounter(registry, "replicaset", group)
}
