// Package graceful lets a Reconcile that runs when the process ends come to its own end: nobody would know whether a
// request that is cancelled was served.
package graceful

import (
	"context"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// period is how long a Reconcile may still take when the process ends.
const period = 500 * time.Millisecond

// Reconciler cancels the context of the Reconcile that it calls not with its own context but 500 ms later. It calls none
// once its own context has ended: the next process reconciles what is queued.
type Reconciler struct{ Inner reconcile.Reconciler }

// Reconcile implements reconcile.Reconciler.
func (r Reconciler) Reconcile(process context.Context, request ctrl.Request) (ctrl.Result, error) {
	if process.Err() != nil {
		return ctrl.Result{}, nil
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(process))
	defer cancel()
	defer context.AfterFunc(process, func() { time.AfterFunc(period, cancel) })()
	result, err := r.Inner.Reconcile(ctx, request)
	if ctx.Err() != nil {
		return ctrl.Result{}, nil // the end of the process is no failure
	}
	return result, err
}
