package podcerts

import (
	"fmt"
	"time"

	"github.com/samber/lo"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// overdueAfter is how long a refresh may take before it is worth an Event.
const overdueAfter = 10 * time.Minute

// Reasons of Events, upstream's.
const (
	eventOverdue = "CertificateOverdueForRefresh"
	eventExpired = "CertificateExpired"
)

// state is what is known of the certificate for one source.
type state struct {
	have    *Credential                           // in use
	pending *pending                              // the request that the signer has not answered yet
	request *certificatesv1.PodCertificateRequest // the pending one as watched, nil if it is not there
	refused string                                // why there will never be a certificate

	overdue, expired bool // there was an Event
}

// Credential is a key with its chain of certificates, both PEM.
type Credential struct {
	Key, Chain []byte
	// Next is when to call Store.Credential again.
	Next                time.Time
	refreshAt, notAfter time.Time
}

type pending struct {
	name   string
	key    []byte
	jitter time.Duration // delays the refresh of the certificate
	// seen says that the watch had the request. If it has it no more, the request was deleted.
	seen bool
	// abandonAt is when the request counts as deleted if the watch never had it.
	abandonAt time.Time
}

type action interface{ why() string }

// reason is why an action is necessary.
type reason string

func (r reason) why() string { return string(r) }

type (
	// create a request, in place of the pending one, if any.
	create struct{ reason }
	// adopt the certificate of the pending request.
	adopt struct {
		reason
		chain                     string
		beginRefreshAt, expiresAt time.Time
	}
	// refuse the certificate for good.
	refuse struct {
		reason
		event, message string
	}
	// warn once that a refresh is late.
	warn struct {
		reason
		event, message string
	}
)

// plan returns the next action, or nil and when to plan again even if the request did not change,
// zero for never.
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
			return warn{"it was not refreshed in time", eventExpired, "PodCertificate expired"}, time.Time{}
		case !s.overdue && !now.Before(h.refreshAt.Add(overdueAfter)):
			return warn{"the signer has not answered", eventOverdue, "PodCertificate refresh overdue"}, time.Time{}
		}
	}
	switch p := s.pending; {
	case p == nil && s.have == nil:
		return create{"the Pod has no certificate yet"}, time.Time{}
	case p == nil && !now.Before(s.have.refreshAt):
		return create{"the certificate is due for a refresh"}, time.Time{}
	case p != nil && s.request == nil && (p.seen || !now.Before(p.abandonAt)):
		return create{"the request was deleted"}, time.Time{}
	}
	return nil, nextCheck(s)
}

// verdict is the action that the signer's answer requires, nil if there is no answer yet.
func verdict(r *certificatesv1.PodCertificateRequest) action {
	for _, c := range r.Status.Conditions {
		switch c.Type {
		case certificatesv1.PodCertificateRequestConditionTypeIssued:
			begin, end := ptr.Deref(r.Status.BeginRefreshAt, metav1.Time{}), ptr.Deref(r.Status.NotAfter, metav1.Time{})
			return adopt{"the signer has issued it", r.Status.CertificateChain, begin.Time, end.Time}
		case certificatesv1.PodCertificateRequestConditionTypeDenied:
			return refuse{"the signer has denied it", c.Type, refusal(r, c, "was denied")}
		case certificatesv1.PodCertificateRequestConditionTypeFailed:
			return refuse{"the signer has failed", c.Type, refusal(r, c, "failed")}
		}
	}
	return nil
}

func refusal(r *certificatesv1.PodCertificateRequest, c metav1.Condition, how string) string {
	const format = "PodCertificateRequest %s/%s %s, reason=%q, message=%q"
	return fmt.Sprintf(format, r.Namespace, r.Name, how, c.Reason, c.Message)
}

func nextCheck(s state) time.Time {
	var times []time.Time
	if s.pending != nil && s.request == nil {
		times = append(times, s.pending.abandonAt)
	}
	if h := s.have; h != nil {
		if s.pending == nil {
			times = append(times, h.refreshAt)
		}
		if !s.overdue {
			times = append(times, h.refreshAt.Add(overdueAfter))
		}
		if !s.expired {
			times = append(times, h.notAfter)
		}
	}
	return lo.Earliest(times...)
}

// requestFor is a request in the name of a Pod. The UIDs have the API server refuse it if the Pod,
// its service account or the node was replaced.
func requestFor(
	pod *v1.Pod, p *v1.PodCertificateProjection, account *v1.ServiceAccount, node *v1.Node, csr []byte,
) *certificatesv1.PodCertificateRequest {
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
