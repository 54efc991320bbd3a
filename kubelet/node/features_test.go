package node

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/featuregate"
	upstream "k8s.io/component-helpers/nodedeclaredfeatures/features"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	_ "k8s.io/kubernetes/pkg/features" // registers the gates
)

// declarable says of each feature that upstream's framework knows whether this node has it.
var declarable = map[string]struct {
	has    bool
	reason string
}{
	"DRANodeAllocatableResources":                  {false, "no dynamic resource allocation"},
	"DRAOptionalNodeOperations":                    {false, "no dynamic resource allocation"},
	"ExtendWebSocketsToKubelet":                    {true, "kubelet/server translates and tunnels, see its TestStreams and TestPortForward"},
	"InPlacePodLevelResourcesVerticalScaling":      {true, "kubelet/pod/plan/resize.go"},
	"InPlacePodVerticalScalingInitContainers":      {true, "kubelet/pod/plan/resize.go"},
	"InPlacePodVerticalScalingMemoryBackedVolumes": {false, "a tmpfs keeps the size that it was mounted with"},
	"RestartAllContainersOnContainerExits":         {true, "kubelet/pod/plan/restart_all.go"},
	"UserNamespacesHostNetworkSupport":             {false, "no user namespaces"},
	"VolumeBindMountOptions":                       {false, "CRI is not given them"},
}

// TestDeclaredFeatures: to declare too much lets the scheduler bind Pods here that cannot run, to
// declare too little leaves them Pending.
func TestDeclaredFeatures(t *testing.T) {
	var known []string
	for _, f := range upstream.AllFeatures {
		known = append(known, f.Name())
	}
	slices.Sort(known)
	if d := cmp.Diff(known, slices.Sorted(maps.Keys(declarable))); d != "" {
		t.Errorf("features that can be declared (-upstream +this test); find out whether the node has the new ones:\n%s", d)
	}
	var have []string
	for _, name := range known {
		if declarable[name].has {
			have = append(have, name)
		}
	}
	if d := cmp.Diff(have, registered().Status.DeclaredFeatures); d != "" {
		t.Errorf("status.declaredFeatures, sorted (-had +declared):\n%s", d)
	}
}

// TestRuntimeHandlers: a handler offers what a Pod can have here, which is less than the runtime could do.
func TestRuntimeHandlers(t *testing.T) {
	can := &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true, UserNamespaces: true}
	got, _ := handlersAndFeatures(&runtimeapi.StatusResponse{RuntimeHandlers: []*runtimeapi.RuntimeHandler{{Name: "runc", Features: can}}})
	want := []v1.NodeRuntimeHandler{{Name: "runc", Features: &v1.NodeRuntimeHandlerFeatures{
		RecursiveReadOnlyMounts: new(true), UserNamespaces: new(false), // hostUsers: false is refused
	}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("runtimeHandlers (-want +got):\n%s", d)
	}
}

// TestFeatureTable: docs/node-features.md speaks of exactly the gates that are on by default, and
// what it says about those that are declared is what the Node declares.
func TestFeatureTable(t *testing.T) {
	raw, err := os.ReadFile("../../docs/node-features.md")
	if err != nil {
		t.Fatal(err)
	}
	ours, others, ok := strings.Cut(string(raw), "\n## Gates that concern other components\n")
	if !ok {
		t.Fatal("the section about other components is missing")
	}
	table := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([^|]+) \\| [^|]+ \\| [^|]+ \\|$").FindAllStringSubmatch(ours, -1) {
		table[row[1]] = row[2]
	}
	listed := slices.Collect(maps.Keys(table))
	for _, name := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(others, -1) {
		listed = append(listed, name[1])
	}
	slices.Sort(listed)

	gates, ok := utilfeature.DefaultFeatureGate.(featuregate.MutableVersionedFeatureGate)
	if !ok {
		t.Fatalf("the gates are a %T", utilfeature.DefaultFeatureGate)
	}
	var on []string
	for name, spec := range gates.GetAll() {
		if spec.Default {
			on = append(on, string(name))
		}
	}
	slices.Sort(on)
	if d := cmp.Diff(on, listed); d != "" {
		t.Errorf("gates on by default (-upstream +docs/node-features.md); say of the new ones what this node has:\n%s", d)
	}
	for name, f := range declarable {
		if says, ok := table[name]; ok && (says == "yes") != f.has {
			t.Errorf("docs/node-features.md says %q about %s, want %t: %s", says, name, f.has, f.reason)
		}
	}
	for name, says := range table {
		if says != "yes" && says != "no" && says != "in part" {
			t.Errorf("docs/node-features.md says %q about %s; it must say yes, no or in part", says, name)
		}
	}
}
