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

// ClientFlags are flags of upstream's programs that are clients of a kube-apiserver in this
// process.
func ClientFlags(kubeconfig, qps string) []string {
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--leader-elect=false", // losing an election would end the process
		"--secure-port=0",      // kube-apiserver serves their metrics too
		"--profiling=false",
		"--kube-api-qps=" + qps, "--kube-api-burst=" + qps,
	}
}

func (s *server) runScheduler(ctx context.Context, up func()) error {
	return Scheduler(ctx, ClientFlags(s.cfg.kubeconfig(PartScheduler), unthrottledQPS), up)
}

// Scheduler runs kube-scheduler with upstream's flags until ctx ends. It calls up when its caches
// are filled.
func Scheduler(ctx context.Context, flags []string, up func()) error {
	o := options.NewOptions()
	err := parse(*o.Flags, flags)
	if err == nil {
		o.InformerName, err = cache.NewInformerName(PartScheduler)
	}
	if err != nil {
		return fmt.Errorf("configuring kube-scheduler: %w", err)
	}
	defer o.InformerName.Release()
	config, upstream, err := app.Setup(ctx, o)
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
