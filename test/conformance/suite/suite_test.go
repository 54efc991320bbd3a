package suite

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		reason string
		out    string
		want   Outcome
	}{
		"passed": {
			"one spec passed", "•\n\nRan 1 of 3206 Specs in 5.1 seconds\nSUCCESS! -- 1 Passed | 0 Failed | 0 Pending | 3205 Skipped\nPASS\n",
			Outcome{State: Passed},
		},
		"failed": {
			"the first failure is the message",
			"  [FAILED] in [It] - x.go:1 @ 18:09\n\n\n\n  [FAILED] Timed out after 30s.\n  In [It] at: x.go:1\n\n  [FAILED] later\nRan 1 of 3206 Specs in 30 seconds\nFAIL! -- 0 Passed | 1 Failed | 0 Pending | 3205 Skipped\n",
			Outcome{State: Failed, Message: "Timed out after 30s. In [It] at: x.go:1"},
		},
		"skipped": {
			"the cluster lacks something", "  [SKIPPED] needs 2 nodes\nRan 0 of 3206 Specs in 1 seconds\nSUCCESS! -- 0 Passed | 0 Failed | 0 Pending | 3206 Skipped\n",
			Outcome{State: Skipped, Message: "needs 2 nodes"},
		},
		"killed": {
			"no summary is a failure", "  STEP: waiting\ne2e.test: signal: killed\n",
			Outcome{State: Failed, Message: "the suite's process did not end properly: e2e.test: signal: killed"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, judge([]byte(c.out))); diff != "" {
				t.Errorf("%s: -want +got:\n%s", c.reason, diff)
			}
		})
	}
}

func TestSelect(t *testing.T) {
	tests := []Test{{Name: "[sig-apps] Deployment a [Conformance]"}, {Name: "[sig-apps] Deployment b"}, {Name: "[sig-node] Pods c [Conformance]", Serial: true}}
	for name, c := range map[string]struct {
		suite, focus, skip string
		want               []string
		fails              bool
	}{
		"conformance": {suite: "conformance", want: []string{tests[0].Name, tests[2].Name}},
		"all":         {suite: "all", focus: "Deployment", want: []string{tests[0].Name, tests[1].Name}},
		"skip":        {suite: "conformance", skip: `\[sig-node\]`, want: []string{tests[0].Name}},
		"no suite":    {suite: "some", fails: true},
		"bad focus":   {suite: "all", focus: "(", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Select(tests, c.suite, c.focus, c.skip)
			if (err != nil) != c.fails {
				t.Fatalf("error %v, want one: %v", err, c.fails)
			}
			var names []string
			for _, g := range got {
				names = append(names, g.Name)
			}
			if diff := cmp.Diff(c.want, names); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestParse(t *testing.T) {
	got, err := parse([]byte(`[{"SpecReports":[{"LeafNodeType":"BeforeSuite"},
		{"LeafNodeType":"It","ContainerHierarchyTexts":["[sig-node] Pods","[Serial]"],"LeafNodeText":"should run"}]}]`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Test{{Name: "[sig-node] Pods [Serial] should run", Serial: true}}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got, want := SIG("[sig-api-machinery] x [Conformance]"), "api-machinery"; got != want {
		t.Errorf("SIG: %q, want %q", got, want)
	}
}

func TestOrder(t *testing.T) {
	tests := []Test{{Name: "new"}, {Name: "short"}, {Name: "long"}}
	Order(tests, func(t Test) float64 { return map[string]float64{"short": 1, "long": 9, "new": 1}[t.Name] })
	if diff := cmp.Diff([]Test{{Name: "long"}, {Name: "new"}, {Name: "short"}}, tests); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
