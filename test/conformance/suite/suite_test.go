package suite

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestJudge(t *testing.T) {
	const name = "[sig-node] a"
	it := func(fields string) string {
		return `[{"SpecReports":[{"LeafNodeType":"BeforeSuite","State":"passed"},{"LeafNodeType":"It","LeafNodeText":"another","State":"passed"},
			{"LeafNodeType":"It","ContainerHierarchyTexts":["[sig-node]"],"LeafNodeText":"a",` + fields + `}]}]`
	}
	for what, c := range map[string]struct {
		reason string
		report string
		want   map[string]Outcome
	}{
		"passed":    {"the suite says so", it(`"State":"passed","RunTime":1500000000`), map[string]Outcome{name: {State: Passed, Seconds: 1.5}}},
		"failed":    {"in one line", it(`"State":"failed","Failure":{"Message":"Timed out\nafter 30s"}`), map[string]Outcome{name: {State: Failed, Message: "Timed out after 30s"}}},
		"timed out": {"whatever it is called", it(`"State":"timedout"`), map[string]Outcome{name: {State: Failed}}},
		"skipped":   {"the cluster lacks something", it(`"State":"skipped","Failure":{"Message":"needs 2 nodes"}`), map[string]Outcome{name: {State: Skipped, Message: "needs 2 nodes"}}},
		"not begun": {"the process was ended before", it(`"State":"skipped"`), map[string]Outcome{}},
		"killed":    {"there is no report", "", nil},
	} {
		if diff := cmp.Diff(c.want, judge([]byte(c.report), []Test{{Name: name}})); diff != "" {
			t.Errorf("%s: %s: -want +got:\n%s", what, c.reason, diff)
		}
	}
}

// e2e is a program in place of e2e.test: it dies in the middle of what the test named crash.
const e2e = `#!/bin/sh
for a; do case "$a" in
	--ginkgo.focus=*) focus=${a#*=} ;;
	--ginkgo.json-report=*) report=${a#*=} ;;
esac; done
comma=
for name in crash good bad; do
	case "$focus" in *$name*) ;; *) continue ;; esac
	echo "$name [sig-x]"; echo "  STEP: $name"
	test $name = crash && exit 2
	state=passed; test $name = bad && state=failed
	list="$list$comma{\"LeafNodeType\":\"It\",\"LeafNodeText\":\"$name\",\"State\":\"$state\"}"; comma=,
	echo ------------------------------
done
echo "[{\"SpecReports\":[$list]}]" > "$report"
`

// A test that takes its process down is alone to blame for it.
func TestRunner(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "e2e.test"), []byte(e2e), 0o755); err != nil {
		t.Fatal(err)
	}
	got, started := map[string]State{}, map[string]bool{}
	r := Runner{
		Programs: Programs{Dir: dir}, LogDir: filepath.Join(dir, "failed"), Workers: 2, Limit: time.Minute,
		Seconds: func(Test) float64 { return 1 },
		Started: func(_ string, t Test) { started[t.Name] = true },
		Ended:   func(o Outcome) { got[o.Name] = o.State },
	}
	if err := r.Run(t.Context(), []Test{{Name: "good"}, {Name: "crash"}, {Name: "bad"}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]State{"good": Passed, "crash": Failed, "bad": Failed}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(map[string]bool{"good": true, "crash": true, "bad": true}, started); diff != "" {
		t.Errorf("started: -want +got:\n%s", diff)
	}
	logs, err := os.ReadDir(r.LogDir)
	if err != nil || len(logs) != 2 {
		t.Errorf("there are %d logs, want those of the two that failed: %v", len(logs), err)
	}
}

func TestLogOf(t *testing.T) {
	const line = "------------------------------\n"
	out := []byte("head\n" + line + "a\n  STEP: x\n" + line + "b\n" + line + "[FAILED] a\n")
	if diff := cmp.Diff("a\n  STEP: x\n"+line+"[FAILED] a\n", string(logOf(out, "a\n", false))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := logOf(out, "a", true); len(got) != len(out) {
		t.Error("a process of one test has only that one's log")
	}
}

func TestBatches(t *testing.T) {
	tests := []Test{{Name: "300"}, {Name: "30"}, {Name: "15"}, {Name: "15"}, {Name: "5"}}
	for range 10 {
		tests = append(tests, Test{Name: "1"})
	}
	var got []int
	for _, b := range Batches(tests, func(t Test) float64 { s, _ := strconv.ParseFloat(t.Name, 64); return s }) {
		got = append(got, len(b))
	}
	if diff := cmp.Diff([]int{1, 1, 8, 5}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
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
		"kind":        {suite: "kind", skip: `\[sig-node\]`, want: []string{tests[0].Name, tests[1].Name}},
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

// What upstream's kind job runs is said by labels, which the suite writes into the names.
func TestKind(t *testing.T) {
	for name, c := range map[string]struct {
		reason, test string
		want         bool
	}{
		"plain":        {"most tests have no label", "[sig-apps] Deployment deployment should support rollover", true},
		"conformance":  {"the job runs those, too", "[sig-apps] Deployment should run [Conformance]", true},
		"gate on":      {"a gate that is on by default asks for nothing", "[sig-node] Pods [FeatureGate:PodLevelResources] [Beta] should run", true},
		"gate off":     {"the suite marks it", "[sig-node] Pods [FeatureGate:New] should run [Alpha] [Feature:OffByDefault]", false},
		"beta off":     {"a Beta gate may be off, too", "[sig-node] Pods [FeatureGate:New] should run [Beta] [Feature:OffByDefault]", false},
		"feature":      {"a cluster has it on demand only", "[sig-network] Services [Feature:SCTPConnectivity] should work", false},
		"node feature": {"is not a feature of the cluster", "[sig-node] Probing [NodeFeature:GRPC] should work", true},
		"slow":         {"", "[sig-apps] CronJob should not schedule [Slow]", false},
		"disruptive":   {"", "[sig-node] Nodes [Disruptive] should restart", false},
		"flaky":        {"", "[sig-node] Nodes [Flaky] should work", false},
		"serial":       {"has a job of its own", "[sig-scheduling] Preemption [Serial] preempts", false},
		"volumes":      {"they need no feature", "[sig-storage] CSI volumes should work", true},
		"devices":      {"nodes have none yet", "[sig-node] [DRA] control plane should work", false},
	} {
		if got := (Test{Name: c.test}).Kind(); got != c.want {
			t.Errorf("%s: %s: got %v, want %v", name, c.reason, got, c.want)
		}
	}
}

// The suites for storage drivers take what is slow, too: nothing else runs it.
func TestStorageSuites(t *testing.T) {
	for name, c := range map[string]struct {
		reason, test   string
		external, mock bool
	}{
		"external": {"our driver's", "External Storage [Driver: local.flyball.dev] [Testpattern: Dynamic PV (xfs)] volumes should allow exec [Slow]", true, false},
		"in tree":  {"belongs to the kind job", "[sig-storage] In-tree Volumes [Driver: local] [Testpattern: Inline-volume] volumes", false, false},
		"mock":     {"", "[sig-storage] CSI Mock volume attach CSI attach test [Slow]", false, true},
		"snapshot": {"Flyball has them", "[sig-storage] CSI Mock volume snapshot [Feature:VolumeSnapshotDataSource] should", false, true},
		"selinux":  {"the host has none", "[sig-storage] CSI Mock selinux on mount [Feature:SELinux] should", false, false},
		"gate off": {"the suite marks it", "[sig-storage] CSI Mock health [FeatureGate:CSIVolumeHealth] [Alpha] [Feature:OffByDefault]", false, false},
	} {
		got := Test{Name: c.test}
		if got.External() != c.external || got.Mock() != c.mock {
			t.Errorf("%s: %s: external %v, mock %v", name, c.reason, got.External(), got.Mock())
		}
	}
}

func TestParse(t *testing.T) {
	got, err := parse([]byte(`[{"SpecReports":[{"LeafNodeType":"BeforeSuite"},
		{"LeafNodeType":"It","ContainerHierarchyTexts":["[sig-node] Pods","","[Serial]"],"LeafNodeText":"should run"}]}]`))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].name() != "[sig-node] Pods [Serial] should run" {
		t.Errorf("got %v", got)
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
