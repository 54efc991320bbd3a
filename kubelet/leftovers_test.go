//go:build linux

package kubelet

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
)

// fakeFiles are the Pods that have a directory.
type fakeFiles []types.UID

func (f fakeFiles) ListPods() ([]types.UID, error) { return f, nil }

// fakeGroups maps a Pod to the processes in its cgroup; -1 cannot be read.
type fakeGroups map[types.UID]int

func (f fakeGroups) ListPods() (uids []types.UID, err error) {
	for uid := range f {
		uids = append(uids, uid)
	}
	return uids, nil
}

func (f fakeGroups) Empty(uid types.UID) (bool, error) {
	if f[uid] < 0 {
		return false, errors.New("no access")
	}
	return f[uid] == 0, nil
}

func TestLeftovers(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		files  fakeFiles
		groups fakeGroups
		want   []types.UID
		err    bool
	}{
		"Files":      {reason: "its volumes are to be unmounted", files: fakeFiles{"a"}, want: []types.UID{"a"}},
		"Both":       {reason: "a Pod of ours is found once", files: fakeFiles{"a"}, groups: fakeGroups{"a": 1}, want: []types.UID{"a"}},
		"Empty":      {reason: "a crash between the cgroup and the directory leaves this", groups: fakeGroups{"a": 0}, want: []types.UID{"a"}},
		"Foreign":    {reason: "processes in a cgroup that we did not make are another kubelet's", groups: fakeGroups{"k3s": 2}},
		"Unreadable": {reason: "what cannot be read stays", files: fakeFiles{"a"}, groups: fakeGroups{"b": -1}, want: []types.UID{"a"}, err: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := leftovers{tc.files, tc.groups}.list()
			if (err != nil) != tc.err {
				t.Errorf("error %v", err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s\nlist() -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}
