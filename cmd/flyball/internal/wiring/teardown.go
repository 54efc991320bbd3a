//go:build linux

package wiring

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"flyball.dev/containerd"
	"flyball.dev/host/instance"
	"flyball.dev/host/teardown"
	"flyball.dev/kubelet"
	"flyball.dev/network"
	"flyball.dev/proxy"
)

// stopPodsTimeout is how long all Pods together may take to end; containerd's shims kill the others.
const stopPodsTimeout = 2 * time.Minute

// Teardown returns the steps that remove what the components of a node leave on the host. When one fails, the later ones are
// still worth trying.
func (c Config) Teardown(purge bool) []teardown.Step {
	pods := teardown.KnownPods(c.kubeletDir())
	steps := []teardown.Step{{Name: "stopping Pods", Run: func(ctx context.Context) error {
		stopped, err := c.stopPods(ctx, pods.UIDs())
		return errors.Join(err, pods.Stopped(stopped))
	}}}
	if c.CRIEndpoint == "" {
		steps = append(steps, teardown.Step{Name: "stopping containerd", Run: func(ctx context.Context) error {
			return containerd.Stop(ctx, c.Containerd())
		}})
	}
	steps = append(steps, []teardown.Step{
		{Name: "removing Services", Run: func(context.Context) error { return proxy.Cleanup() }},
		{Name: "removing the network", Run: func(context.Context) error { return network.Cleanup(c.network()) }},
		{Name: "removing cgroups", Run: pods.RemoveCgroups},
		{Name: "unmounting", Run: func(context.Context) error {
			return teardown.Unmount(c.RunDir, c.kubeletDir(), filepath.Join(c.DataDir, "containerd"))
		}},
		{Name: "removing run-time files", Run: func(context.Context) error { return teardown.RemoveTree(c.RunDir) }},
	}...)
	if purge {
		steps = append(steps, teardown.Step{Name: "removing data", Run: func(context.Context) error {
			return pods.RemoveData(c.DataDir, PodLogsDir, instance.AdminKubeconfig)
		}})
	}
	return steps
}

func (c Config) stopPods(ctx context.Context, known []string) ([]string, error) {
	if !c.runtimeAnswers() {
		return nil, nil // the containers of a runtime that has ended go with its shims
	}
	ctx, cancel := context.WithTimeout(ctx, stopPodsTimeout)
	defer cancel()
	return kubelet.StopPods(ctx, kubelet.Config{
		CRIEndpoint: c.criEndpoint(), SharedRuntime: c.CRIEndpoint != "", RootDir: c.kubeletDir(),
	}, known)
}

// Fresh reports whether no Pod can be running here: no runtime answers, and there is no state of one that died, beside which
// containers run on.
func (c Config) Fresh() bool {
	if _, err := os.Stat(c.Containerd().StateDir); err == nil {
		return false
	}
	return !c.runtimeAnswers()
}
