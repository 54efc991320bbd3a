package server

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/component-base/metrics"
	"k8s.io/kubernetes/pkg/kubelet/metrics/collectors"

	"flyball.dev/kubelet/internal/metricsdoc"
)

func TestDocumentation(t *testing.T) {
	resource := metrics.NewKubeRegistry()
	resource.CustomMustRegister(collectors.NewResourceMetricsCollector(summaries{fakeStats{}}))
	families, err := resource.Gather()
	if err != nil {
		t.Fatal(err)
	}
	served := sets.New[string]()
	for _, f := range families {
		served.Insert(f.GetName())
	}
	served.Delete("scrape_error") // deprecated: hidden in a build that knows its version, which tests do not
	for heading, want := range map[string]sets.Set[string]{
		"/metrics: requests": metricsdoc.Described(newRequests().collectors()...),
		"/metrics/resource":  served,
	} {
		documented := metricsdoc.Names(t, "../..", heading)
		if diff := cmp.Diff(sets.List(documented), sets.List(want)); diff != "" {
			t.Errorf("docs/metrics.md, %s, lists other metrics than are served (-listed +served):\n%s", heading, diff)
		}
	}
}

func TestPathsOfRequests(t *testing.T) {
	for path, want := range map[string]string{
		"/metrics": "metrics", "/metrics/cadvisor": "metrics/cadvisor", "/exec/a/b/c": "exec", "/containerLogs/a/b/c": "containerLogs",
		"/stats/summary": "stats", "/anything/else": "other", "/metricsx": "other", "/": "other",
	} {
		if got := pathLabel(path); got != want {
			t.Errorf("a request of %s counts as %s, want %s", path, got, want)
		}
	}
}
