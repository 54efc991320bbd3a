package approver

import (
	"context"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
)

// Reasons of the condition and of the Event.
const (
	reasonApproved = "ServingNamesOfNode"
	reasonLeft     = "NotApproved"
	reasonWaiting  = "NotApprovedYet"
)

// What may become of requests that are not approved, at the end of their Events.
const (
	hintLeft    = "; an administrator may approve it with kubectl certificate approve"
	hintWaiting = "; it is approved as soon as that has changed" + hintLeft
)

// retryAfter is when an approval that failed is tried again, unless something changes before.
const retryAfter = time.Second

// Config is what Run needs.
type Config struct {
	Client    kubernetes.Interface
	Protected Protected
	// Ready is called once, when all requests that are there have been looked at. Optional.
	Ready func()
}

// Run decides about requests until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: cfg.Client.CoreV1().Events("")})
	a := &approver{
		Config: cfg, told: map[string]string{},
		events: broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: "flyball-csr-approver"}),
	}

	requests := informers.NewSharedInformerFactoryWithOptions(cfg.Client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.signerName", certificatesv1.KubeletServingSignerName).String()
	}))
	nodes := informers.NewSharedInformerFactoryWithOptions(cfg.Client, 0, informers.WithTransform(trimNode))
	a.requests = requests.Certificates().V1().CertificateSigningRequests().Informer()
	a.nodes = nodes.Core().V1().Nodes().Informer()
	// There are few of either: whatever changed, every open request is looked at.
	changed := make(chan struct{}, 1)
	wake := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	for _, i := range []cache.SharedIndexInformer{a.requests, a.nodes} {
		if _, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { wake() }, UpdateFunc: func(any, any) { wake() }, DeleteFunc: func(any) { wake() },
		}); err != nil {
			return fmt.Errorf("watching certificate signing requests: %w", err)
		}
	}
	for _, f := range []informers.SharedInformerFactory{requests, nodes} {
		f.Start(ctx.Done())
		defer f.Shutdown()
	}
	if !cache.WaitForCacheSync(ctx.Done(), a.requests.HasSynced, a.nodes.HasSynced) {
		return nil
	}
	a.run(ctx, changed)
	return nil
}

type approver struct {
	Config

	requests, nodes cache.SharedIndexInformer
	events          record.EventRecorder
	// told is what was last said about requests that are not approved, so that it is said once.
	told map[string]string
}

func (a *approver) run(ctx context.Context, changed <-chan struct{}) {
	ready := a.Ready
	for {
		now := time.Now()
		var again <-chan time.Time
		if at := a.look(ctx, now); !at.IsZero() {
			again = time.After(at.Sub(now))
		}
		if ready != nil {
			ready()
			ready = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again:
		}
	}
}

// look is observe, plan, act for every request. It returns when to look again if nothing changes; zero if never.
func (a *approver) look(ctx context.Context, now time.Time) (again time.Time) {
	var nodes []*v1.Node
	for _, o := range a.nodes.GetStore().List() {
		nodes = append(nodes, o.(*v1.Node))
	}
	sooner := func(at time.Time) {
		if again.IsZero() || !at.IsZero() && at.Before(again) {
			again = at
		}
	}
	still := map[string]string{}
	for _, o := range a.requests.GetStore().List() {
		request := o.(*certificatesv1.CertificateSigningRequest)
		action := plan(State{Request: request, Nodes: nodes, Protected: a.Protected, Now: now})
		sooner(action.Again)
		if action.Do == Approve {
			if err := a.approve(ctx, request, action.Reason); err != nil {
				klog.FromContext(ctx).Error(err, "Approving a kubelet's serving certificate failed, trying again", "request", request.Name)
				sooner(now.Add(retryAfter))
			}
		}
		if action.Tell {
			still[request.Name] = action.Reason
			a.tell(ctx, request, action)
		}
	}
	a.told = still
	return again
}

// tell says why a request is not approved, unless that was the last thing said about it.
func (a *approver) tell(ctx context.Context, request *certificatesv1.CertificateSigningRequest, action Action) {
	if a.told[request.Name] == action.Reason {
		return
	}
	reason, hint := reasonLeft, hintLeft
	if action.Do == Wait {
		reason, hint = reasonWaiting, hintWaiting
	}
	a.events.Event(request, v1.EventTypeWarning, reason, action.Reason+hint)
	klog.FromContext(ctx).V(2).Info("Not approving a kubelet's serving certificate", "request", request.Name, "verdict", action.Do, "reason", action.Reason)
}

// approve writes the condition. The resourceVersion is a precondition: what is approved is what was read.
func (a *approver) approve(ctx context.Context, request *certificatesv1.CertificateSigningRequest, reason string) error {
	approved := request.DeepCopy()
	approved.Status.Conditions = append(approved.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: v1.ConditionTrue, Reason: reasonApproved, Message: reason,
	})
	_, err := a.Client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, approved.Name, approved, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) || ctx.Err() != nil {
		return nil //nolint:nilerr // the watch brings what it is now
	}
	return err
}

// trimNode keeps of a Node what the plan reads.
func trimNode(obj any) (any, error) {
	n, ok := obj.(*v1.Node)
	if !ok {
		return obj, nil
	}
	small := &v1.Node{Status: v1.NodeStatus{Addresses: n.Status.Addresses}}
	small.Name, small.UID, small.ResourceVersion = n.Name, n.UID, n.ResourceVersion
	return small, nil
}
