package plugins

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestPlan(t *testing.T) {
	now := time.Unix(1000, 0)
	at := func(inode uint64) file { return file{inode, time.Unix(int64(inode), 0)} } // later ones have higher numbers
	plugin := func(name, path string) *Plugin { return &Plugin{Type: "T", Name: name, Socket: path} }
	x := key{"T", "x"}
	from := func(path string, inode uint64) map[key]registration {
		return map[key]registration{x: {*plugin("x", path), source{path, at(inode)}}}
	}
	type want struct {
		Do     verb
		Path   string
		Plugin string
	}
	for name, tc := range map[string]struct {
		reason string
		state  state
		want   []want
		next   time.Time
	}{
		"New":  {"A driver is asked what it is.", state{sockets: map[string]*socket{"a": {file: at(1)}, "b": {file: at(2)}}}, []want{{ask, "a", ""}, {ask, "b", ""}}, time.Time{}},
		"Busy": {"One call at a time.", state{sockets: map[string]*socket{"a": {file: at(1), busy: true}}}, nil, time.Time{}},
		"Retry": {"The earliest retry is the next plan.", state{sockets: map[string]*socket{
			"a": {file: at(1), retry: now.Add(time.Minute)}, "b": {file: at(2), retry: now.Add(time.Second)},
		}}, nil, now.Add(time.Second)},
		"Answered":   {"The handler gets it.", state{sockets: map[string]*socket{"a": {file: at(1), plugin: plugin("x", "a")}}}, []want{{register, "a", "x"}}, time.Time{}},
		"Registered": {"Nothing is left to do.", state{sockets: map[string]*socket{"a": {file: at(1), plugin: plugin("x", "a")}}, registered: from("a", 1)}, nil, time.Time{}},
		"Refused": {"A failed registration is tried again when its time comes.", state{sockets: map[string]*socket{
			"a": {file: at(1), plugin: plugin("x", "a"), retry: now.Add(time.Second)},
		}}, nil, now.Add(time.Second)},
		"Gone":     {"The last socket of a name has gone.", state{registered: from("a", 1)}, []want{{deregister, "a", "x"}}, time.Time{}},
		"Changing": {"The handler is at it.", state{registered: from("a", 1), changing: map[key]bool{x: true}}, nil, time.Time{}},
		"Replaced": {"A new socket at the same path is asked; the plugin stays meanwhile.", state{
			sockets: map[string]*socket{"a": {file: at(2)}}, registered: from("a", 1),
		}, []want{{ask, "a", ""}}, time.Time{}},
		"ReplacedAndAnswered": {"It is registered anew.", state{
			sockets: map[string]*socket{"a": {file: at(2), plugin: plugin("x", "a")}}, registered: from("a", 1),
		}, []want{{register, "a", "x"}}, time.Time{}},
		"Renamed": {"Another driver has the path now.", state{
			sockets: map[string]*socket{"a": {file: at(2), plugin: plugin("y", "a")}}, registered: from("a", 1),
		}, []want{{register, "a", "y"}, {deregister, "a", "x"}}, time.Time{}},
		"Update": {"In a rolling update the newer socket takes the name.", state{
			sockets:    map[string]*socket{"new": {file: at(2), plugin: plugin("x", "new")}, "old": {file: at(1), plugin: plugin("x", "old")}},
			registered: from("old", 1),
		}, []want{{register, "new", "x"}}, time.Time{}},
		"Updated": {"The older one is not registered again.", state{
			sockets:    map[string]*socket{"new": {file: at(2), plugin: plugin("x", "new")}, "old": {file: at(1), plugin: plugin("x", "old")}},
			registered: from("new", 2),
		}, nil, time.Time{}},
		"OldGone": {"The newer one stays.", state{
			sockets: map[string]*socket{"new": {file: at(2), plugin: plugin("x", "new")}}, registered: from("new", 2),
		}, nil, time.Time{}},
		"OldGoneEarly": {"The name is never without a driver.", state{
			sockets: map[string]*socket{"new": {file: at(2), plugin: plugin("x", "new")}}, registered: from("old", 1),
		}, []want{{register, "new", "x"}}, time.Time{}},
		"NewGone": {"The older driver is still there: the update was undone.", state{
			sockets: map[string]*socket{"old": {file: at(1), plugin: plugin("x", "old")}}, registered: from("new", 2),
		}, []want{{register, "old", "x"}}, time.Time{}},
		"NewReplaced": {"The older one does not take the name while the newer one is asked again.", state{
			sockets:    map[string]*socket{"new": {file: at(3), busy: true}, "old": {file: at(1), plugin: plugin("x", "old")}},
			registered: from("new", 2),
		}, nil, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			actions, next := plan(tc.state, now)
			var got []want
			for _, a := range actions {
				got = append(got, want{a.do, a.from.path, a.plugin.Name})
			}
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s\n-want, +got:\n%s", tc.reason, diff)
			}
			if !next.Equal(tc.next) {
				t.Errorf("%s: next plan at %s, want %s", tc.reason, next, tc.next)
			}
		})
	}
}
