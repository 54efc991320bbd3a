//go:build linux

package rootdir

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestPlan(t *testing.T) {
	const root, former = "/var/lib/kubelet", "/data/kubelet"
	dirs := Dirs{Root: root, Data: "/data"}
	pods := move{former + "/pods", root + "/pods", ""}
	far := move{former + "/pods", root + "/pods", "/data/kubelet/pods lies on the mount /data"}
	for name, tc := range map[string]struct {
		reason string
		state  state
		want   []step
		says   []string
	}{
		"Fresh":   {"A new node.", state{dirs: dirs}, []step{claim{root}, point{}}, nil},
		"Again":   {"Every start is the same.", state{dirs: dirs, owner: "/data", ours: true, others: []string{"pods"}}, []step{claim{root}, point{}}, nil},
		"InPlace": {"The path that earlier versions had.", state{dirs: Dirs{Root: former, Data: "/data"}, others: []string{"pods"}}, []step{claim{former}}, nil},
		"Kubelet": {
			"It is not ours to clean.",
			state{dirs: dirs, others: []string{"config.yaml", "pki", "pods", "memory_manager_state"}},
			nil,
			[]string{root, "config.yaml, pki, pods and 1 more", "kubelet.rootDir"},
		},
		"OtherNode": {
			"Two nodes would end each other's Pods.",
			state{dirs: dirs, owner: "/srv/other", others: []string{"pods"}},
			nil,
			[]string{root, "/srv/other", "kubelet.rootDir", "flyball down --purge --data-dir /srv/other"},
		},
		"Moved": {
			"An earlier version kept them in the data directory.",
			state{dirs: dirs, former: former, moves: []move{pods}, emptied: []string{former}},
			[]step{claim{root}, pods, prune{[]string{former}}, point{}},
			nil,
		},
		"Interrupted": {
			"The rest follows.",
			state{dirs: dirs, owner: "/data", ours: true, others: []string{"volumes"}, former: former, moves: []move{pods}, emptied: []string{former}},
			[]step{claim{root}, pods, prune{[]string{former}}, point{}},
			nil,
		},
		"OtherFileSystem": {
			"Nothing is copied.",
			state{dirs: dirs, former: former, moves: []move{far}, emptied: []string{former}},
			[]step{claim{root}, claim{former}, bind{former}},
			nil,
		},
		"Bound": {"The mount of an earlier start is still there.", state{dirs: dirs, owner: "/data", ours: true, others: []string{"pods"}, bound: true}, nil, nil},
		"Hidden": {
			"A mount would hide the files of Pods that are there.",
			state{dirs: dirs, owner: "/data", ours: true, others: []string{"volumes"}, former: former, moves: []move{far}},
			nil,
			[]string{former, "on the mount /data", "kubelet.rootDir"},
		},
		"Clash": {
			"One would be lost.",
			state{dirs: dirs, former: former, clashes: []string{root + "/plugins/a/csi.sock"}},
			nil,
			[]string{former, root + "/plugins/a/csi.sock"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := plan(tc.state)
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(claim{}, move{}, prune{}, bind{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s\n-want, +got:\n%s", tc.reason, diff)
			}
			if (err != nil) != (tc.says != nil) {
				t.Fatalf("%s: %v", tc.reason, err)
			}
			for _, part := range tc.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s: %q does not say %q", tc.reason, err, part)
				}
			}
		})
	}
}
