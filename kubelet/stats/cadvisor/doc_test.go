//go:build linux

package cadvisor

import (
	"testing"

	"github.com/google/cadvisor/lib/metrics"
	info "github.com/google/cadvisor/lib/model"
	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/clock"

	"flyball.dev/kubelet/internal/metricsdoc"
)

const repository = "../../.."

// undescribed are those that the library makes without describing them.
var undescribed = []string{
	"container_spec_cpu_quota", "container_spec_memory_limit_bytes",
	"container_spec_memory_swap_limit_bytes", "container_spec_memory_reservation_limit_bytes",
}

func TestDocumentation(t *testing.T) {
	documented := metricsdoc.Names(t, repository, "/metrics/cadvisor")
	m := &source{hostInfo: &hostInfo{}}
	can := metricsdoc.Described(
		metrics.NewPrometheusMachineCollector(m, kinds(true)),
		metrics.NewPrometheusCollector(m, labels, kinds(true), clock.RealClock{}, info.RequestOptions{}),
		fileSystems{},
	).Insert(undescribed...)
	can = can.Difference(unmeasured(true).Intersection(unmeasured(false)))
	if diff := cmp.Diff(sets.List(documented), sets.List(can)); diff != "" {
		t.Errorf("docs/metrics.md lists other metrics than there are (-listed +there):\n%s", diff)
	}
}

func TestServedIsDocumented(t *testing.T) {
	documented := metricsdoc.Names(t, repository, "/metrics/cadvisor")
	cfg := world(t, 1)
	fill(t, cfg, "main0")
	if more := sets.KeySet(scrape(t, cfg)).Difference(documented); len(more) > 0 {
		t.Errorf("served, but not listed in docs/metrics.md: %v", sets.List(more))
	}
}
