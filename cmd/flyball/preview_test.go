package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"flyball.dev/controllers/preview"
)

func TestPrintsPlans(t *testing.T) {
	var out bytes.Buffer
	var rows []string
	for _, p := range []preview.Preview{
		{
			Object: "deployment.apps/web", Namespace: "ns", Next: 9 * time.Second,
			Steps:      []preview.Step{{What: "scale ReplicaSet web-1 from 2 to 3", Why: "3 Pods wanted"}, {What: "delete ReplicaSet web-0", Why: "more than 1 old ReplicaSets"}},
			Conditions: []string{"Progressing is True, ReplicaSetUpdated: moving"},
		},
		{Object: "replicaset.apps/web-1", Namespace: "ns"},
	} {
		rows = append(rows, p.Rows()...)
	}
	cmd := &cobra.Command{}
	cmd.SetOut(&out)
	if err := printRows(cmd, rows); err != nil {
		t.Fatal(err)
	}
	want := `deployment.apps/web in namespace ns
  1. scale ReplicaSet web-1 from 2 to 3   because 3 Pods wanted
  2. delete ReplicaSet web-0              because more than 1 old ReplicaSets
  Progressing is True, ReplicaSetUpdated: moving
  It reconciles again after 9s, or when something happens.
replicaset.apps/web-1 in namespace ns
  nothing to do
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPlugin: under the name of a kubectl plugin it is the same program.
func TestPlugin(t *testing.T) {
	if err := run(t.Context(), []string{"/usr/bin/kubectl-flyball", "plan"}); err == nil || !strings.Contains(err.Error(), "name either an object") {
		t.Errorf("got %v", err)
	}
}
