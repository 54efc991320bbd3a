package node

import (
	"context"
	"fmt"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// create makes the Node unless it exists.
func (c *Controller) create(ctx context.Context, out outcome) error {
	nodes := c.cfg.Client.CoreV1().Nodes()
	created, err := nodes.Create(ctx, out.write, metav1.CreateOptions{})
	switch {
	case err == nil:
		c.accepted(created, out)
		return nil
	case apierrors.IsAlreadyExists(err):
		return nil
	case apierrors.IsForbidden(err):
		// Some clusters forbid nodes to create themselves and create them beforehand.
		if _, getErr := nodes.Get(ctx, c.cfg.Name, metav1.GetOptions{}); getErr == nil {
			return nil
		}
	}
	return fmt.Errorf("creating Node %s: %w", c.cfg.Name, err)
}

// update writes the status with its conditions, the labels and the annotations. The
// resourceVersion is a precondition: it undoes nothing that others have written meanwhile.
func (c *Controller) update(ctx context.Context, out outcome) error {
	nodes := c.cfg.Client.CoreV1().Nodes()
	updated, err := nodes.UpdateStatus(ctx, out.write, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		// Our copy is old. Reconcile again at once, with the current one.
		updated, err = nodes.Get(ctx, c.cfg.Name, metav1.GetOptions{})
		c.written = lo.Ternary(err == nil, updated, nil)
		c.Recheck()
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	if err != nil {
		return fmt.Errorf("updating the status of Node %s: %w", c.cfg.Name, err)
	}
	klog.FromContext(ctx).V(2).Info("Updated the status of the Node", "reason", out.reason, "ready", out.ready)
	c.accepted(updated, out)
	return nil
}

// accepted remembers a write that the API server accepted, and publishes its Events.
func (c *Controller) accepted(n *v1.Node, out outcome) {
	c.written = n
	for _, e := range out.events {
		c.cfg.Recorder.Event(Reference(c.cfg.Name), v1.EventTypeNormal, e.reason, e.message)
	}
	c.reportReady(out)
}

// reportReady reports once that the API server knows the Node as Ready.
func (c *Controller) reportReady(out outcome) {
	if out.ready && c.cfg.Ready != nil {
		c.signalReady.Do(c.cfg.Ready)
	}
}

// report publishes an error after which the controller retries: users who wait for the Node want to
// know why it does not come.
func (c *Controller) report(ctx context.Context, err error) {
	switch log := klog.FromContext(ctx); {
	case ctx.Err() != nil: // the error only says that the agent stops
	case c.cfg.Report == nil:
		log.Error(err, "The Node is not up to date")
	default:
		log.V(1).Info("The Node is not up to date", "err", err)
		c.cfg.Report(err)
	}
}

// Reference is what Events about a Node refer to. Its UID is the Node's name, as upstream's kubelet
// has it: the Event may be older than the object.
func Reference(name string) *v1.ObjectReference {
	return &v1.ObjectReference{Kind: "Node", Name: name, UID: types.UID(name)}
}
