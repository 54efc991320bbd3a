// Package actions counts what the loops do.
package actions

import (
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Counter counts the actions of one loop for one API group.
type Counter struct {
	loop, group string
	total       *prometheus.CounterVec
}

// NewCounter registers flyball_controller_actions_total, unless the registry has it already: several loops, and several
// managers in one process, share it.
func NewCounter(registry prometheus.Registerer, loop, group string) Counter {
	total := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "flyball_controller_actions_total",
		Help: "Planned actions that were carried out, by loop, API group, action and result (done or failed).",
	}, []string{"loop", "group", "action", "result"})
	if registered, ok := errors.AsType[prometheus.AlreadyRegisteredError](registry.Register(total)); ok {
		total = registered.ExistingCollector.(*prometheus.CounterVec)
	}
	return Counter{loop: loop, group: group, total: total}
}

// Count counts an action, by the name of its type.
func (c Counter) Count(action any, err error) {
	name := fmt.Sprintf("%T", action)
	result := "done"
	if err != nil {
		result = "failed"
	}
	c.total.WithLabelValues(c.loop, c.group, strings.ToLower(name[strings.LastIndex(name, ".")+1:]), result).Inc()
}
