package node

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/apimachinery/lease"
	kubeletutil "k8s.io/kubernetes/pkg/kubelet/util"
	"k8s.io/utils/clock"
)

// leaseRenewals is how often the Lease is renewed within its duration.
const leaseRenewals = 4

// renewLease keeps the Lease that the node lifecycle controller reads as the heartbeat of this
// node, until ctx ends. The Node owns the Lease, so that both are deleted together.
func (c *Controller) renewLease(ctx context.Context) {
	lease.NewController(clock.RealClock{}, c.cfg.Client, c.cfg.Name, int32(c.cfg.LeaseDuration/time.Second), nil,
		c.cfg.LeaseDuration/leaseRenewals, c.cfg.Name, v1.NamespaceNodeLease,
		kubeletutil.SetNodeOwnerFunc(ctx, c.cfg.Client, c.cfg.Name)).Run(ctx)
}
