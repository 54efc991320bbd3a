// Package actions counts what the loops do.
package actions

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Counter counts the actions of one loop for one API group.
type Counter struct {
	loop, group string
	total       *prometheus.CounterVec
}

// NewCounter registers flyball_controller_actions_total, unless the registry has it already: several loops, and several
// managers in one process, share it.
func NewCounter(registry prometheus.Registerer, loop, group string) *Counter {
	total := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "flyball_controller_actions_total",
		Help: "Planned actions that were carried out, by loop, API group, action and result (done or failed).",
	}, []string{"loop", "group", "action", "result"})
	var registered prometheus.AlreadyRegisteredError
	if errors.As(registry.Register(total), &registered) {
		total = registered.ExistingCollector.(*prometheus.CounterVec)
	}
	return &Counter{loop: loop, group: group, total: total}
}

// Add counts n objects that an action concerned. A failed action counts as one: how far it came is not known.
func (c *Counter) Add(action string, n int, err error) {
	result := "done"
	if err != nil {
		result, n = "failed", 1
	}
	c.total.WithLabelValues(c.loop, c.group, action, result).Add(float64(n))
}
