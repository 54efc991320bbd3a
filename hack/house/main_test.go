package main

import (
	"slices"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for name, tc := range map[string]struct {
		reason   string
		packages []pkg
		want     string
	}{
		"Down": {
			reason:   "a folder imports lower layers and itself",
			packages: []pkg{{ImportPath: module + "kubelet", Imports: []string{module + "kubelet/pod", module + "internal/x", "fmt"}}},
		},
		"Up": {
			reason:   "a lower layer knows nothing of a higher one",
			packages: []pkg{{ImportPath: module + "nft", Imports: []string{module + "proxy"}}},
			want:     "flyball.dev/nft imports proxy, which is not in a lower layer",
		},
		"Beside": {
			reason:   "components meet at the API server",
			packages: []pkg{{ImportPath: module + "proxy", Imports: []string{module + "network"}}},
			want:     "flyball.dev/proxy imports network, which is not in a lower layer",
		},
		"Circle": {
			reason: "packages of two folders import one another, each a different package",
			packages: []pkg{
				{ImportPath: module + "kubelet/pod", Imports: []string{module + "kubelet/containers"}},
				{ImportPath: module + "kubelet/containers", Imports: []string{module + "kubelet/pod/plan"}},
			},
			want: "folders import one another in a circle: kubelet/containers → kubelet/pod → kubelet/containers",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, err := range check(tc.packages) {
				got = append(got, err.Error())
			}
			if tc.want == "" && got != nil || tc.want != "" && !slices.Equal(got, []string{tc.want}) {
				t.Errorf("%s: check() = %q, want %q", tc.reason, got, tc.want)
			}
		})
	}
}

func TestMissing(t *testing.T) {
	t.Chdir("../..")
	got := missing("`hack/house/main.go`, `hack/house/`, `apps/v1`, and `hack/nothing.go`")
	if len(got) != 1 || !strings.Contains(got[0].Error(), "hack/nothing.go") {
		t.Errorf("missing() = %v", got)
	}
}

func TestSynopsis(t *testing.T) {
	if got := synopsis(pkg{Doc: "Package pod runs Pods."}); got != "runs Pods" {
		t.Errorf("synopsis() = %q", got)
	}
}
