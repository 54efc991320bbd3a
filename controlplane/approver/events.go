package approver

import (
	"context"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
)

// Reasons of the condition and of the Events.
const (
	reasonApproved = "ServingNamesOfNode"
	reasonLeft     = "NotApproved"
	reasonWaiting  = "NotApprovedYet"
)

// Ends of the Events' messages: what happens to a request that is not approved.
const (
	hintLeft    = "; an administrator may approve it with kubectl certificate approve"
	hintWaiting = "; it is approved as soon as that has changed" + hintLeft
)

func newEvents(ctx context.Context, client kubernetes.Interface) (recorder record.EventRecorder, stop func()) {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	return broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: "flyball-csr-approver"}), broadcaster.Shutdown
}

func (c *controller) report(ctx context.Context, request *certificatesv1.CertificateSigningRequest, action Action) {
	reason, hint := reasonLeft, hintLeft
	if action.Do == Wait {
		reason, hint = reasonWaiting, hintWaiting
	}
	c.events.Event(request, v1.EventTypeWarning, reason, action.Reason+hint)
	klog.FromContext(ctx).V(2).Info("Not approving a node's certificate", "request", request.Name, "verdict", action.Do, "reason", action.Reason)
}
