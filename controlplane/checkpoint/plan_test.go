package checkpoint

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const prefix = "/registry/"

func records(values map[string]string) []record {
	var list []record
	for _, key := range slices.Sorted(maps.Keys(values)) {
		list = append(list, record{key: prefix + key, value: []byte(values[key])})
	}
	return list
}

func TestPlan(t *testing.T) {
	put := func(key, value string) change { return change{record: record{key: prefix + key, value: []byte(value)}} }
	remove := func(key string) change {
		return change{record: record{key: prefix + key, value: []byte("1")}, delete: true}
	}
	for name, test := range map[string]struct {
		reason      string
		then, now   map[string]string
		first, rest []change
	}{
		"Same": {
			reason: "nothing is written, and so nobody is told of anything",
			then:   map[string]string{"pods/a/x": "1"}, now: map[string]string{"pods/a/x": "1"},
		},
		"Changed": {
			reason: "an object is what it was",
			then:   map[string]string{"pods/a/x": "1", "pods/a/y": "1"}, now: map[string]string{"pods/a/x": "2", "pods/a/y": "1"},
			rest: []change{put("pods/a/x", "1")},
		},
		"ComesAndGoes": {
			reason: "what was deleted is back, and what was created is gone",
			then:   map[string]string{"pods/a/x": "1"}, now: map[string]string{"pods/a/y": "1"},
			rest: []change{put("pods/a/x", "1"), remove("pods/a/y")},
		},
		"DefinitionsFirst": {
			reason: "a kind takes a moment to be served",
			then:   map[string]string{"a.dev/things/x": "1", definitions + "things.a.dev": "1"},
			now:    map[string]string{definitions + "others.a.dev": "1"},
			first:  []change{put(definitions+"things.a.dev", "1")},
			rest:   []change{put("a.dev/things/x", "1"), remove(definitions + "others.a.dev")},
		},
		"Lives": {
			reason: "who is alive now is no matter of then",
			then:   map[string]string{"leases/kube-node-lease/n": "1", "masterleases/127.0.0.1": "1", "leases/a/mine": "1"},
			now:    map[string]string{"leases/kube-node-lease/n": "2", "leases/kube-system/apiserver-b": "1", "leases/a/mine": "2"},
			rest:   []change{put("leases/a/mine", "1")},
		},
		"Registered": {
			reason: "the API server registers by itself what definitions define, and only that",
			then:   map[string]string{apiServices + "v1.a.dev": "x" + string(automanaged), apiServices + "v1.metrics.dev": "1"},
			now:    map[string]string{apiServices + "v1.b.dev": "y" + string(automanaged)},
			rest:   []change{put(apiServices+"v1.metrics.dev", "1")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			first, rest := plan(prefix, records(test.then), records(test.now))
			options := cmp.AllowUnexported(change{}, record{})
			if diff := cmp.Diff(test.first, first, options); diff != "" {
				t.Errorf("%s; first (-want +got):\n%s", test.reason, diff)
			}
			if diff := cmp.Diff(test.rest, rest, options); diff != "" {
				t.Errorf("%s; rest (-want +got):\n%s", test.reason, diff)
			}
		})
	}
}

func TestPlanMakesNowThen(t *testing.T) {
	state := rapid.MapOf(rapid.SampledFrom([]string{"a", "b", "c", "d", definitions + "x", definitions + "y"}), rapid.SampledFrom([]string{"1", "2", "3"}))
	rapid.Check(t, func(t *rapid.T) {
		then, now := state.Draw(t, "then"), state.Draw(t, "now")
		first, rest := plan(prefix, records(then), records(now))
		for _, c := range append(first, rest...) {
			if key := c.key[len(prefix):]; c.delete {
				delete(now, key)
			} else {
				now[key] = string(c.value)
			}
		}
		if diff := cmp.Diff(then, now); diff != "" {
			t.Fatalf("after the plan (-then +now):\n%s", diff)
		}
	})
}
