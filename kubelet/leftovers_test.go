//go:build linux

package kubelet

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
)

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
		files  []types.UID
		groups fakeGroups
		want   []types.UID
		err    bool
	}{
		"Files":      {reason: "its volumes have to be unmounted", files: []types.UID{"a"}, want: []types.UID{"a"}},
		"Both":       {reason: "a Pod of ours is found once", files: []types.UID{"a"}, groups: fakeGroups{"a": 1}, want: []types.UID{"a"}},
		"Empty":      {reason: "a crash between the cgroup and the directory leaves this", groups: fakeGroups{"a": 0}, want: []types.UID{"a"}},
		"Foreign":    {reason: "processes in an unknown cgroup are another kubelet's", groups: fakeGroups{"k3s": 2}},
		"Unreadable": {reason: "a cgroup that cannot be read stays", files: []types.UID{"a"}, groups: fakeGroups{"b": -1}, want: []types.UID{"a"}, err: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := leftovers(func() ([]types.UID, error) { return tc.files, nil }, tc.groups)
			if (err != nil) != tc.err {
				t.Errorf("error %v", err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s\nleftovers() -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}
