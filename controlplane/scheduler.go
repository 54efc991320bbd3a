package controlplane

import (
	"context"
	"fmt"

	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

// unthrottledQPS replaces upstream's client-side limits (20 to 50 requests per second), which are
// older than priority and fairness. With them, creating and binding 1000 Pods takes 50 s instead of
// 3 s.
const unthrottledQPS = "1000"

func schedulerFlags(c *credentials) []string {
	return []string{
		"--kubeconfig=" + c.scheduler,
		"--leader-elect=false", // losing an election would end the process
		"--secure-port=0",      // kube-apiserver serves its metrics too, since they share this process
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

// scheduler is the component that runs kube-scheduler. It is up when its caches are filled.
type scheduler struct{ options *options.Options }

func (scheduler) name() string { return PartScheduler }

func (s scheduler) run(ctx context.Context, up func()) error {
	name, err := cache.NewInformerName(PartScheduler)
	if err != nil {
		return fmt.Errorf("configuring kube-scheduler: %w", err)
	}
	defer name.Release()
	s.options.InformerName = name
	config, upstream, err := app.Setup(ctx, s.options)
	if err != nil {
		return fmt.Errorf("configuring kube-scheduler: %w", err)
	}
	go func() {
		if upstream.WaitForHandlersSync(ctx) == nil {
			up()
		}
	}()
	if err := app.Run(ctx, config, upstream); err != nil { // without leader election it always returns an error
		return fmt.Errorf("running kube-scheduler: %w", err)
	}
	return nil
}
