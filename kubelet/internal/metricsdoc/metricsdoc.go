// Package metricsdoc reads the lists in docs/metrics.md for tests that compare them with what is
// served.
package metricsdoc

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/util/sets"
)

var row = regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)`")

// Names are the metrics in the tables of the section of docs/metrics.md with a heading; root is
// the path of the repository.
func Names(t *testing.T, root, heading string) sets.Set[string] {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(raw), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("docs/metrics.md has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	names := sets.New[string]()
	for _, m := range row.FindAllStringSubmatch(section, -1) {
		names.Insert(m[1])
	}
	return names
}

var fqName = regexp.MustCompile(`fqName: "([^"]+)"`)

// Described are the names of all metrics that collectors can have.
func Described(collectors ...prometheus.Collector) sets.Set[string] {
	names := sets.New[string]()
	for _, c := range collectors {
		all := make(chan *prometheus.Desc)
		go func() { c.Describe(all); close(all) }()
		for d := range all {
			names.Insert(fqName.FindStringSubmatch(d.String())[1])
		}
	}
	return names
}
