package controlplane

import (
	"context"
	"fmt"

	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

// unthrottledQPS replaces upstream's client-side limits (20 to 50 requests per second), which date from before priority and
// fairness: with them, creating and binding 1000 Pods takes 50 s instead of 3 s.
const unthrottledQPS = "1000"

func schedulerFlags(c *credentials) []string {
	return []string{
		"--kubeconfig=" + c.scheduler,
		"--leader-elect=false", // there is one; and losing an election ends the process
		"--secure-port=0",      // its metrics are in kube-apiserver's, since they share this process
		"--profiling=false",
		"--kube-api-qps=" + unthrottledQPS, "--kube-api-burst=" + unthrottledQPS,
	}
}

func parseScheduler(flags []string) (*options.Options, error) {
	o := options.NewOptions()
	if err := parse(*o.Flags, flags); err != nil {
		return nil, fmt.Errorf("configuring kube-scheduler: %w", err)
	}
	return o, nil
}

// runScheduler schedules until ctx ends. up is called when its caches are filled.
func runScheduler(ctx context.Context, o *options.Options, up func()) error {
	name, err := cache.NewInformerName(PartScheduler)
	if err != nil {
		return fmt.Errorf("configuring kube-scheduler: %w", err)
	}
	defer name.Release()
	o.InformerName = name
	config, scheduler, err := app.Setup(ctx, o)
	if err != nil {
		return fmt.Errorf("configuring kube-scheduler: %w", err)
	}
	go func() {
		if scheduler.WaitForHandlersSync(ctx) == nil {
			up()
		}
	}()
	if err := app.Run(ctx, config, scheduler); err != nil { // without leader election it always returns an error
		return fmt.Errorf("running kube-scheduler: %w", err)
	}
	return nil
}
