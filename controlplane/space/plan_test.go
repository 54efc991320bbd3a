package space

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNext(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const mib = 1 << 20
	ago := func(l Level, d time.Duration) State { return State{Level: l, Since: now.Add(-d)} }
	for name, tc := range map[string]struct {
		reason string
		state  State
		free   Free
		want   State
	}{
		"Plenty":      {"nothing to do", State{}, Free{Bytes: 900 * mib}, State{}},
		"GettingLow":  {"it stops at 64 MiB and not before", State{}, Free{Bytes: 64 * mib}, State{}},
		"Low":         {"there is enough for what frees space", State{}, Free{Bytes: 63 * mib}, State{Essential, now}},
		"StaysLow":    {"the first writes would stop it again", ago(Essential, time.Hour), Free{Bytes: 127 * mib}, ago(Essential, time.Hour)},
		"EnoughAgain": {"Leases were written all the time", ago(Essential, time.Hour), Free{Bytes: 128 * mib}, State{All, now}},
		"Gone":        {"etcd needs what is left", ago(Essential, time.Minute), Free{Bytes: 3 * mib}, State{None, now}},
		"GoneAtOnce":  {"a copy fills a disk within a second", State{}, Free{}, State{None, now}},
		"StaysGone":   {"", ago(None, time.Hour), Free{}, ago(None, time.Hour)},
		"Freed":       {"the node would be taken for dead if others could write first", ago(None, time.Hour), Free{Bytes: 900 * mib}, State{Leases, now}},
		"LeasesFirst": {"an agent renews every ten seconds", ago(Leases, 11*time.Second), Free{Bytes: 900 * mib}, ago(Leases, 11*time.Second)},
		"LeasesThere": {"every agent had its chance", ago(Leases, 12*time.Second), Free{Bytes: 900 * mib}, State{All, now}},
		"FreedALittle": {
			"after the Leases, what frees more", ago(Leases, time.Minute), Free{Bytes: 100 * mib}, State{Essential, now},
		},
		"GoneAgain":  {"", ago(Leases, time.Second), Free{Bytes: mib}, State{None, now}},
		"NoInodes":   {"files cannot be made", State{}, Free{Bytes: 900 * mib, Inodes: 9, Total: 5000}, State{None, now}},
		"FewInodes":  {"", State{}, Free{Bytes: 900 * mib, Inodes: 900, Total: 5000}, State{Essential, now}},
		"NotCounted": {"btrfs makes inodes as it needs them and says zero of zero", State{}, Free{Bytes: 900 * mib}, State{}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, tc.state.Next(tc.free, now)); diff != "" {
				t.Errorf("%s\nNext(): -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestAdmits(t *testing.T) {
	const everything, controller = "all essential leases none", "system:serviceaccount:kube-system:"
	names := map[Level]string{All: "all", Essential: "essential", Leases: "leases", None: "none"}
	for name, tc := range map[string]struct {
		reason string
		write  Write
		want   string
	}{
		"Get":          {"reads cost nothing", Write{Verb: "get", Resource: "pods"}, everything},
		"Watch":        {"node agents must see what is deleted", Write{Verb: "watch", Resource: "pods"}, everything},
		"Exec":         {"somebody wants to look for what fills the disk", Write{Verb: "create", Resource: "pods", Subresource: "exec"}, everything},
		"AccessReview": {"the node agent asks who may exec", Write{Verb: "create", Group: "authorization.k8s.io", Resource: "subjectaccessreviews"}, everything},
		"Token":        {"running Pods need a fresh one; it is not stored", Write{Verb: "create", Resource: "serviceaccounts", Subresource: "token"}, everything},
		"Lease":        {"a node without one is taken for dead", Write{Verb: "update", Group: "coordination.k8s.io", Resource: "leases"}, "all essential leases"},
		"DeletePod":    {"it frees what the Pod wrote", Write{Verb: "delete", Resource: "pods"}, "all essential"},
		"DeletePods":   {"", Write{Verb: "deletecollection", Resource: "pods"}, "all essential"},
		"Evict":        {"", Write{Verb: "create", Resource: "pods", Subresource: "eviction"}, "all essential"},
		"PodStatus":    {"Services follow the readiness of what runs", Write{Verb: "patch", Resource: "pods", Subresource: "status"}, "all essential"},
		"Endpoints": {
			"a Service leaves out what is not ready any more",
			Write{User: controller + "endpointslice-controller", Verb: "update", Group: "discovery.k8s.io", Resource: "endpointslices"},
			"all essential",
		},
		"EndNamespace": {"", Write{Verb: "update", Resource: "namespaces", Subresource: "finalize"}, "all essential"},
		"EndClaim": {
			"its finalizer is removed by an update, and its volume stays until then",
			Write{User: controller + "pvc-protection-controller", Verb: "update", Resource: "persistentvolumeclaims"},
			"all essential",
		},
		"EndJobPod":     {"", Write{User: controller + "job-controller", Verb: "patch", Resource: "pods"}, "all essential"},
		"EndForeground": {"", Write{User: controller + "generic-garbage-collector", Verb: "patch", Group: "apps", Resource: "deployments"}, "all essential"},
		"JobPod":        {"it ends no deletion", Write{User: controller + "job-controller", Verb: "create", Resource: "pods"}, "all"},
		"Annotate":      {"", Write{User: controller + "daemon-set-controller", Verb: "update", Group: "apps", Resource: "controllerrevisions"}, "all"},
		"SameName": {
			"everybody can name a service account so in his own namespace",
			Write{User: "system:serviceaccount:default:job-controller", Verb: "patch", Resource: "pods"},
			"all",
		},
		"Create": {"it would be lost, or end etcd", Write{Verb: "create", Resource: "configmaps"}, "all"},
		"Update": {"", Write{Verb: "update", Group: "apps", Resource: "deployments"}, "all"},
		"Scale":  {"", Write{Verb: "patch", Group: "apps", Resource: "deployments", Subresource: "scale"}, "all"},
		"Event":  {"there are many of them", Write{Verb: "create", Resource: "events"}, "all"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, l := range []Level{All, Essential, Leases, None} {
				if l.Admits(tc.write) {
					got = append(got, names[l])
				}
			}
			if diff := cmp.Diff(tc.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("%s\nlevels that admit it: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestError(t *testing.T) {
	const goesOn = "; Pods continue to run, but new writes are refused; free some space, and Flyball continues by itself"
	for name, tc := range map[string]struct {
		free Free
		err  error
		want string
	}{
		"Bytes":  {Free{Bytes: 3 << 20, Inodes: 5000, Total: 9000}, nil, "3 MiB free, 128 MiB needed"},
		"Inodes": {Free{Bytes: 1 << 30, Inodes: 12, Total: 9000}, nil, "12 inodes free, 2000 needed"},
		"Quota":  {Free{Bytes: 1 << 30}, errors.New("allocating 128 MiB in /data: disk quota exceeded"), "allocating 128 MiB in /data: disk quota exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			want := "no space left on the file system of /data: " + tc.want + goesOn
			if diff := cmp.Diff(want, (&Error{Dir: "/data", Free: tc.free, Err: tc.err}).Error()); diff != "" {
				t.Errorf("-want, +got:\n%s", diff)
			}
		})
	}
}
