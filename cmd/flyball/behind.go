package main

import (
	"context"
	"fmt"
	"io/fs"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/config"
	"flyball.dev/controllers"
	"flyball.dev/controlplane"
	"flyball.dev/controlplane/envtest"
	"flyball.dev/controlplane/programs"
	"flyball.dev/simulated"
)

// awaitedNodes is how many nodes are waited for at most. A test suite waits no longer than 20 seconds for its kube-apiserver
// by default, and a thousand nodes may take longer.
const awaitedNodes = 100

// behind is what the mode asks for behind the API server of a test suite, nil if that is nothing.
func behind(m envtest.Mode) programs.Behind {
	if !m.Controllers {
		return nil
	}
	runners := envtest.Runners{appsLoops{}, upstream{}}
	if m.Nodes > 0 {
		runners = append(runners, nodes{m.Nodes})
	}
	return workload{runners}.Run
}

// podCheck refuses Pods whose annotations simulated nodes do not understand, nil if there are no such nodes.
func podCheck(m envtest.Mode) programs.PodCheck {
	if m.Nodes == 0 {
		return nil
	}
	return simulated.CheckAnnotations
}

// workload runs the runners, and when all work the loops of apps.flyball.dev. Their definitions hold all of a Pod's fields and
// take the API server a second to process, which most suites need not wait for.
type workload struct{ first envtest.Runners }

func (w workload) Run(ctx context.Context, server programs.Server, up func()) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return w.first.Run(ctx, server, func() {
			up()
			g.Go(func() error { return runOurKinds(ctx, server.Client) })
		})
	})
	return g.Wait()
}

func runOurKinds(ctx context.Context, client *rest.Config) error {
	if err := controlplane.Apply(ctx, client, []fs.FS{config.CRDs}); err != nil {
		return fmt.Errorf("installing the kinds of apps.flyball.dev: %w", err)
	}
	return controllers.Run(ctx, controllers.Config{Client: rest.CopyConfig(client), Kinds: []schema.GroupVersion{v1alpha1.GroupVersion}})
}

// appsLoops are our loops for apps/v1.
type appsLoops struct{}

func (appsLoops) Run(ctx context.Context, server programs.Server, up func()) error {
	return controllers.Run(ctx, controllers.Config{
		Client: rest.CopyConfig(server.Client), Kinds: []schema.GroupVersion{appsv1.SchemeGroupVersion}, Ready: up,
	})
}

// upstream is kube-controller-manager and kube-scheduler.
type upstream struct{}

func (upstream) Run(ctx context.Context, server programs.Server, up func()) error {
	return programs.RunControllers(ctx, server, up)
}

// nodes are simulated.
type nodes struct{ count int }

func (n nodes) Run(ctx context.Context, server programs.Server, up func()) error {
	return simulated.Run(ctx, simulated.Config{Client: rest.CopyConfig(server.Client), Nodes: n.count, Awaited: awaitedNodes, Ready: up})
}
