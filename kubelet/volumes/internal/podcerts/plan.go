package podcerts

import (
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// overdueAfter is how long a refresh may take before the user is told.
const overdueAfter = 10 * time.Minute

// Reasons of Events, upstream's.
const (
	eventOverdue = "CertificateOverdueForRefresh"
	eventExpired = "CertificateExpired"
)

// state is what is known of the certificate for one source.
type state struct {
	// have is the credential in use.
	have *credential
	// pending is the request under way.
	pending *pending
	// request is what the watch says about the pending one, nil for nothing.
	request *certificatesv1.PodCertificateRequest
	// refused is why there will not be a certificate, for good.
	refused string
	// overdue and expired say that the user was told.
	overdue, expired bool
}

// credential is a key with its chain of certificates, both PEM.
type credential struct {
	key, chain          []byte
	refreshAt, notAfter time.Time
}

type pending struct {
	name string
	key  []byte
	// jitter delays the refresh of the certificate that comes of it.
	jitter time.Duration
	// seen says that the watch had it. If it has it no more, it was deleted.
	seen bool
	// abandonAt is when to take it for deleted if the watch never had it.
	abandonAt time.Time
}

type action interface{ why() string }

type (
	// ask creates a request, in place of the pending one, if any.
	ask struct{ reason string }
	// adopt takes the certificate of the pending request into use.
	adopt struct {
		chain                     string
		beginRefreshAt, expiresAt time.Time
		reason                    string
	}
	// refuse gives up.
	refuse struct{ event, message, reason string }
	// warn tells the user once that a refresh is late.
	warn struct{ event, message, reason string }
)

func (a ask) why() string    { return a.reason }
func (a adopt) why() string  { return a.reason }
func (a refuse) why() string { return a.reason }
func (a warn) why() string   { return a.reason }

// plan returns the next action, or nil and when to look again though the request
// did not change, zero for never.
func plan(s state, now time.Time) (action, time.Time) {
	if s.refused != "" {
		return nil, time.Time{}
	}
	if s.pending != nil && s.request != nil {
		if a := verdict(s.request); a != nil {
			return a, time.Time{}
		}
	}
	if h := s.have; h != nil {
		switch {
		case !s.expired && !now.Before(h.notAfter):
			return warn{eventExpired, "PodCertificate expired", "it was not refreshed in time"}, time.Time{}
		case !s.overdue && !now.Before(h.refreshAt.Add(overdueAfter)):
			return warn{eventOverdue, "PodCertificate refresh overdue", "the signer has not answered"}, time.Time{}
		}
	}
	switch p := s.pending; {
	case p == nil && s.have == nil:
		return ask{"the Pod has no certificate yet"}, time.Time{}
	case p == nil && !now.Before(s.have.refreshAt):
		return ask{"the certificate is to be refreshed"}, time.Time{}
	case p != nil && s.request == nil && (p.seen || !now.Before(p.abandonAt)):
		return ask{"the request was deleted"}, time.Time{}
	}
	return nil, lookAgain(s)
}

// verdict is what the signer's answer asks for, nil if there is none yet.
func verdict(r *certificatesv1.PodCertificateRequest) action {
	for _, c := range r.Status.Conditions {
		switch c.Type {
		case certificatesv1.PodCertificateRequestConditionTypeIssued:
			return adopt{r.Status.CertificateChain, timeOf(r.Status.BeginRefreshAt), timeOf(r.Status.NotAfter), "the signer has issued it"}
		case certificatesv1.PodCertificateRequestConditionTypeDenied:
			return refuse{c.Type, refusal(r, c, "was denied"), "the signer has denied it"}
		case certificatesv1.PodCertificateRequestConditionTypeFailed:
			return refuse{c.Type, refusal(r, c, "failed"), "the signer has failed"}
		}
	}
	return nil
}

func refusal(r *certificatesv1.PodCertificateRequest, c metav1.Condition, how string) string {
	return fmt.Sprintf("PodCertificateRequest %s/%s %s, reason=%q, message=%q", r.Namespace, r.Name, how, c.Reason, c.Message)
}

func lookAgain(s state) time.Time {
	var next time.Time
	at := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	if s.pending != nil && s.request == nil {
		at(s.pending.abandonAt)
	}
	if h := s.have; h != nil {
		if s.pending == nil {
			at(h.refreshAt)
		}
		if !s.overdue {
			at(h.refreshAt.Add(overdueAfter))
		}
		if !s.expired {
			at(h.notAfter)
		}
	}
	return next
}

// requestFor is a request in the name of a Pod. The API server checks that the
// Pod, its service account and the node are what they were.
func requestFor(pod *v1.Pod, p *v1.PodCertificateProjection, account *v1.ServiceAccount, node *v1.Node, csr []byte) *certificatesv1.PodCertificateRequest {
	return &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, GenerateName: "req-",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}},
		},
		Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: p.SignerName, MaxExpirationSeconds: p.MaxExpirationSeconds, UnverifiedUserAnnotations: p.UserAnnotations,
			PodName: pod.Name, PodUID: pod.UID, ServiceAccountName: account.Name, ServiceAccountUID: account.UID,
			NodeName: types.NodeName(node.Name), NodeUID: node.UID, StubPKCS10Request: csr,
		},
	}
}

func timeOf(t *metav1.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}
