package podcerts

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// answered is a request with a condition.
func answered(condition string) *certificatesv1.PodCertificateRequest {
	r := &certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "req-1"}}
	if condition == "" {
		return r
	}
	r.Status.Conditions = []metav1.Condition{{Type: condition, Status: metav1.ConditionTrue, Reason: "Because", Message: "so"}}
	if condition == certificatesv1.PodCertificateRequestConditionTypeIssued {
		r.Status.CertificateChain = "chain"
		r.Status.BeginRefreshAt, r.Status.NotAfter = &metav1.Time{Time: noon.Add(time.Hour)}, &metav1.Time{Time: noon.Add(2 * time.Hour)}
	}
	return r
}

func TestPlan(t *testing.T) {
	waiting := &pending{name: "req-1", seen: true, abandonAt: noon.Add(abandonAfter)}
	unseen := &pending{name: "req-1", abandonAt: noon.Add(abandonAfter)}
	fresh := &Credential{refreshAt: noon.Add(time.Hour), notAfter: noon.Add(2 * time.Hour)}
	due := &Credential{refreshAt: noon, notAfter: noon.Add(time.Hour)}
	overdue := &Credential{refreshAt: noon.Add(-overdueAfter), notAfter: noon.Add(time.Hour)}
	expired := &Credential{refreshAt: noon.Add(-time.Hour), notAfter: noon}
	cases := map[string]struct {
		reason string
		state  state
		want   action
		next   time.Time
	}{
		"First":    {reason: "a Pod without certificate asks", want: create{"the Pod has no certificate yet"}},
		"Waiting":  {reason: "while the signer is silent there is nothing to do", state: state{pending: waiting, request: answered("")}},
		"WatchLag": {reason: "what the watch has not delivered may come", state: state{pending: unseen}, next: noon.Add(abandonAfter)},
		"Lost":     {reason: "but not for ever", state: state{pending: &pending{abandonAt: noon}}, want: create{"the request was deleted"}},
		"Deleted":  {reason: "what was there and is gone was deleted", state: state{pending: waiting}, want: create{"the request was deleted"}},
		"Issued": {
			reason: "the signer has answered", state: state{pending: waiting, request: answered("Issued")},
			want: adopt{"the signer has issued it", "chain", noon.Add(time.Hour), noon.Add(2 * time.Hour)},
		},
		"Denied": {
			reason: "in upstream's words", state: state{pending: waiting, request: answered("Denied")},
			want: refuse{"the signer has denied it", "Denied", `PodCertificateRequest ns/req-1 was denied, reason="Because", message="so"`},
		},
		"Failed": {
			reason: "as well", state: state{have: due, pending: waiting, request: answered("Failed")},
			want: refuse{"the signer has failed", "Failed", `PodCertificateRequest ns/req-1 failed, reason="Because", message="so"`},
		},
		"Refused": {reason: "a refusal is for good", state: state{refused: "no"}},
		"Fresh":   {reason: "plan again when it is due for a refresh", state: state{have: fresh}, next: fresh.refreshAt},
		"Due":     {reason: "a new request in time", state: state{have: due}, want: create{"the certificate is due for a refresh"}},
		"Refreshing": {
			reason: "the old one is in use until then; tell if it takes long",
			state:  state{have: due, pending: waiting, request: answered("")}, next: noon.Add(overdueAfter),
		},
		"Overdue": {
			reason: "tell once", state: state{have: overdue, pending: waiting, request: answered("")},
			want: warn{"the signer has not answered", eventOverdue, "PodCertificate refresh overdue"},
		},
		"ToldOverdue": {
			reason: "and then wait for the end", state: state{have: overdue, pending: waiting, request: answered(""), overdue: true}, next: overdue.notAfter,
		},
		"Expired": {
			reason: "the worst comes first", state: state{have: expired, pending: waiting, request: answered("")},
			want: warn{"it was not refreshed in time", eventExpired, "PodCertificate expired"},
		},
		"ToldExpired": {reason: "after that all is said", state: state{have: expired, pending: waiting, request: answered(""), overdue: true, expired: true}},
		"IssuedLate": {
			reason: "better late than never", state: state{have: expired, pending: waiting, request: answered("Issued")},
			want: adopt{"the signer has issued it", "chain", noon.Add(time.Hour), noon.Add(2 * time.Hour)},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, next := plan(tc.state, noon)
			opts := cmp.AllowUnexported(create{}, adopt{}, refuse{}, warn{})
			if diff := cmp.Diff(tc.want, got, opts); diff != "" {
				t.Errorf("%s\nplan() -want +got:\n%s", tc.reason, diff)
			}
			if !next.Equal(tc.next) {
				t.Errorf("%s: plans again at %v, want %v", tc.reason, next, tc.next)
			}
		})
	}
}

// TestPlanSettles: whatever is known, acting ends, and a Pod that was not refused
// has asked or has a certificate that is not to be refreshed yet.
func TestPlanSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := func(name string) time.Time {
			return noon.Add(time.Duration(rapid.IntRange(-180, 180).Draw(t, name)) * time.Minute)
		}
		s := state{overdue: rapid.Bool().Draw(t, "overdue"), expired: rapid.Bool().Draw(t, "expired")}
		if rapid.Bool().Draw(t, "have") {
			s.have = &Credential{refreshAt: at("refresh"), notAfter: at("expiry")}
		}
		if rapid.Bool().Draw(t, "pending") {
			s.pending = &pending{seen: rapid.Bool().Draw(t, "seen"), abandonAt: at("abandon")}
			if rapid.Bool().Draw(t, "there") {
				s.request = answered(rapid.SampledFrom([]string{"", "Issued", "Denied", "Failed"}).Draw(t, "condition"))
			}
		}
		for turns := 0; ; turns++ {
			a, next := plan(s, noon)
			if a == nil {
				if !next.IsZero() && !next.After(noon) {
					t.Fatalf("plans again at %v, which is past", next)
				}
				break
			}
			if turns > 5 {
				t.Fatalf("still acting: %#v", a)
			}
			switch a := a.(type) {
			case create:
				s.pending, s.request = &pending{abandonAt: noon.Add(abandonAfter)}, nil
			case adopt:
				s.have, s.pending, s.request = &Credential{refreshAt: a.beginRefreshAt, notAfter: a.expiresAt}, nil, nil
				s.overdue, s.expired = false, false
			case refuse:
				s.refused = a.message
			case warn:
				s.overdue, s.expired = true, s.expired || a.event == eventExpired
			}
		}
		if s.refused == "" && s.pending == nil && (s.have == nil || !s.have.refreshAt.After(noon)) {
			t.Fatal("nothing is under way")
		}
	})
}
