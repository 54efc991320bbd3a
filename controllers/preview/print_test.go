package preview

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPrint(t *testing.T) {
	var out bytes.Buffer
	for _, p := range []Preview{
		{
			Object: "deployment.apps/web", Namespace: "ns", Next: 9 * time.Second,
			Steps:      []Step{{What: "scale ReplicaSet web-1 from 2 to 3", Why: "3 Pods wanted"}, {What: "delete ReplicaSet web-0", Why: "more than 1 old ReplicaSets"}},
			Conditions: []string{"Progressing is True, ReplicaSetUpdated: moving"},
		},
		{Object: "replicaset.apps/web-1", Namespace: "ns"},
	} {
		if err := p.Print(&out); err != nil {
			t.Fatal(err)
		}
	}
	want := `deployment.apps/web in namespace ns
  1. scale ReplicaSet web-1 from 2 to 3   because 3 Pods wanted
  2. delete ReplicaSet web-0              because more than 1 old ReplicaSets
  Progressing is True, ReplicaSetUpdated: moving
  It looks again after 9s, or when something happens.
replicaset.apps/web-1 in namespace ns
  nothing to do
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
