package approver

import (
	"context"
	"fmt"
	"time"

	"github.com/samber/lo"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"flyball.dev/internal/trigger"
)

// retryAfter is when an approval that failed is tried again, unless something changes before.
const retryAfter = time.Second

// Config is what Run needs.
type Config struct {
	Client    kubernetes.Interface
	Protected Protected
	// Ready is called once, after the first reconcile. Optional.
	Ready func()
}

// controller reconciles all requests at once: there are few of them, and few Nodes.
type controller struct {
	Config

	requests, nodes cache.SharedIndexInformer
	changed         trigger.Trigger
	events          record.EventRecorder
	// reported has the last Event about each request that is not approved, so that it is not
	// repeated.
	reported map[string]string
}

// Run approves requests until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	events, stopEvents := newEvents(ctx, cfg.Client)
	defer stopEvents()
	requests := informers.NewSharedInformerFactoryWithOptions(cfg.Client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermNotEqualSelector("spec.signerName", certificatesv1.KubeAPIServerClientKubeletSignerName).String()
	}))
	nodes := informers.NewSharedInformerFactoryWithOptions(cfg.Client, 0, informers.WithTransform(trimNode))
	c := &controller{
		Config:   cfg,
		requests: requests.Certificates().V1().CertificateSigningRequests().Informer(),
		nodes:    nodes.Core().V1().Nodes().Informer(),
		changed:  trigger.New(), events: events, reported: map[string]string{},
	}
	for _, i := range []cache.SharedIndexInformer{c.requests, c.nodes} {
		if _, err := i.AddEventHandler(c.changed); err != nil {
			return fmt.Errorf("watching certificate signing requests: %w", err)
		}
	}
	for _, f := range []informers.SharedInformerFactory{requests, nodes} {
		f.Start(ctx.Done())
		defer f.Shutdown()
	}
	if cache.WaitFor(ctx, "", c.requests.HasSyncedChecker(), c.nodes.HasSyncedChecker()) {
		c.run(ctx)
	}
	return nil
}

func (c *controller) run(ctx context.Context) {
	for first := true; ; first = false {
		var requeue <-chan time.Time
		if after := c.reconcile(ctx, time.Now()); after > 0 {
			requeue = time.After(after)
		}
		if first && c.Ready != nil {
			c.Ready()
		}
		select {
		case <-ctx.Done():
			return
		case <-c.changed:
		case <-requeue:
		}
	}
}

// reconcile plans and acts for every request. It returns after how long to reconcile again if
// nothing changes; 0 means never.
func (c *controller) reconcile(ctx context.Context, now time.Time) (requeueAfter time.Duration) {
	var nodes []*v1.Node
	for _, o := range c.nodes.GetStore().List() {
		nodes = append(nodes, o.(*v1.Node))
	}
	var delays []time.Duration
	reported := map[string]string{}
	for _, o := range c.requests.GetStore().List() {
		request := o.(*certificatesv1.CertificateSigningRequest)
		action := plan(State{Request: request, Nodes: nodes, Protected: c.Protected, Now: now})
		if action.RequeueAfter > 0 {
			delays = append(delays, action.RequeueAfter)
		}
		if action.Do == Approve {
			if err := c.approve(ctx, request, action.Reason); err != nil {
				klog.FromContext(ctx).Error(err, "Approving a node's certificate failed, trying again", "request", request.Name)
				delays = append(delays, retryAfter)
			}
		}
		if action.Report {
			reported[request.Name] = action.Reason
			if c.reported[request.Name] != action.Reason {
				c.report(ctx, request, action)
			}
		}
	}
	c.reported = reported
	return lo.Min(delays) // 0 if there is none
}

func trimNode(obj any) (any, error) {
	n, ok := obj.(*v1.Node)
	if !ok {
		return obj, nil
	}
	small := &v1.Node{Status: v1.NodeStatus{Addresses: n.Status.Addresses}}
	small.Name, small.UID, small.ResourceVersion = n.Name, n.UID, n.ResourceVersion
	return small, nil
}

// approve adds the condition. The resourceVersion is a precondition: the request is approved as it
// was read.
func (c *controller) approve(ctx context.Context, request *certificatesv1.CertificateSigningRequest, reason string) error {
	approved := request.DeepCopy()
	approved.Status.Conditions = append(approved.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: v1.ConditionTrue, Reason: reasonApproved, Message: reason,
	})
	_, err := c.Client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, approved.Name, approved, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) || ctx.Err() != nil {
		return nil //nolint:nilerr // the watch has a newer version
	}
	return err
}
