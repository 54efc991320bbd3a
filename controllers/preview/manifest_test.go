package preview

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadsManifests(t *testing.T) {
	in := "kind: Service\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n---\napiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: b, namespace: other}\n"
	manifests, err := readManifests(strings.NewReader(in), "-", "mine")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range manifests {
		got = append(got, m.GetKind()+" "+m.GetNamespace()+"/"+m.GetName())
	}
	if diff := cmp.Diff([]string{"Deployment mine/a", "ReplicaSet other/b"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, in := range map[string]string{"nothing of ours": "kind: Service\n", "no YAML": "a: [\n"} {
		if _, err := readManifests(strings.NewReader(in), "-", "mine"); err == nil || !strings.Contains(err.Error(), "reading the manifest -") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
