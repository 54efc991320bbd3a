package probes

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/kubernetes/pkg/probe"

	"flyball.dev/kubelet/internal/metricsdoc"
)

func TestDocumentation(t *testing.T) {
	documented := metricsdoc.Names(t, "../..", "/metrics/probes")
	m := newMetrics()
	m.count(&v1.Pod{}, loopKey{}, probe.Success, time.Second)
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	served := sets.New[string]()
	for _, f := range families {
		served.Insert(f.GetName())
	}
	if diff := cmp.Diff(sets.List(documented), sets.List(served)); diff != "" {
		t.Errorf("docs/metrics.md lists other metrics than are served (-listed +served):\n%s", diff)
	}
}
