package envtest

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
	"flyball.dev/controlplane/programs"
	"flyball.dev/simulated"
)

// awaitedNodes is how many nodes are waited for at most. Those who start kube-apiserver wait for it no longer than 20 seconds
// by default, a thousand nodes may take longer, and nothing needs all of them at once.
const awaitedNodes = 100

// Behind is what Mode asks for, nil if that is nothing. It works when its controllers do and its nodes are Ready, or the first
// of them if they are many; the other nodes and the kinds of apps.flyball.dev follow.
func (m Mode) Behind() programs.Behind {
	if !m.Controllers {
		return nil
	}
	return func(ctx context.Context, server programs.Server, up func()) error {
		g, ctx := errgroup.WithContext(ctx)
		var waits []chan struct{}
		run := func(part func(ctx context.Context, up func()) error) {
			ready := make(chan struct{})
			waits = append(waits, ready)
			g.Go(func() error { return part(ctx, func() { close(ready) }) })
		}
		run(func(ctx context.Context, up func()) error {
			return controllers.Run(ctx, controllers.Config{
				Client: rest.CopyConfig(server.Client), Kinds: []schema.GroupVersion{appsv1.SchemeGroupVersion}, Ready: up,
			})
		})
		run(func(ctx context.Context, up func()) error { return programs.RunControllers(ctx, server, up) })
		if m.Nodes > 0 {
			run(func(ctx context.Context, up func()) error {
				return m.runNodes(ctx, server, up)
			})
		}
		g.Go(func() error {
			for _, ready := range waits {
				select {
				case <-ready:
				case <-ctx.Done():
					return nil
				}
			}
			up()
			return runOurKinds(ctx, server.Client)
		})
		return g.Wait()
	}
}

// PodCheck refuses Pods whose annotations simulated nodes do not understand, nil if there are no such nodes.
func (m Mode) PodCheck() programs.PodCheck {
	if m.Nodes == 0 {
		return nil
	}
	return simulated.CheckAnnotations
}

// runNodes runs the nodes alone.
func (m Mode) runNodes(ctx context.Context, server programs.Server, up func()) error {
	return simulated.Run(ctx, simulated.Config{Client: rest.CopyConfig(server.Client), Nodes: m.Nodes, Awaited: awaitedNodes, Ready: up})
}

// runOurKinds installs the kinds of apps.flyball.dev and runs their loops. Their definitions hold all of a Pod's fields and
// take the API server a second to digest, which most suites need not wait for.
func runOurKinds(ctx context.Context, client *rest.Config) error {
	if err := controlplane.Apply(ctx, client, []fs.FS{config.CRDs}); err != nil {
		return fmt.Errorf("installing the kinds of apps.flyball.dev: %w", err)
	}
	return controllers.Run(ctx, controllers.Config{Client: rest.CopyConfig(client), Kinds: []schema.GroupVersion{v1alpha1.GroupVersion}})
}
