//go:build linux

package wiring

import (
	"context"
	"errors"
	"os"
	"time"

	"flyball.dev/containerd"
	"flyball.dev/host/checks"
	"flyball.dev/host/instance"
	"flyball.dev/host/teardown"
	"flyball.dev/kubelet"
	"flyball.dev/network"
	"flyball.dev/proxy"
	"flyball.dev/storage"
)

// stopPodsTimeout is how long all Pods together may take to end.
const stopPodsTimeout = 2 * time.Minute

// Teardown returns the steps that remove what the components of a node leave on the host.
func (c Config) Teardown(purge bool) []teardown.Step {
	pods := teardown.KnownPods(c.rootDirs())
	steps := []teardown.Step{{Name: "stopping Pods", Run: func(ctx context.Context) error {
		stopped, err := c.stopPods(ctx, pods.UIDs())
		return errors.Join(err, pods.Stopped(stopped))
	}}}
	if c.CRIEndpoint == "" {
		steps = append(steps, teardown.Step{Name: "stopping containerd", Run: func(ctx context.Context) error {
			return containerd.Stop(ctx, c.Containerd())
		}})
	}
	steps = append(steps,
		teardown.Step{Name: "removing Services", Run: func(context.Context) error { return proxy.Cleanup() }},
		teardown.Step{Name: "removing the network", Run: func(context.Context) error { return network.Cleanup(c.network()) }},
	)
	return append(steps, pods.Steps(teardown.Dirs{
		Run: c.RunDir, Data: c.DataDir, PodLogs: PodLogsDir, AdminKubeconfig: instance.AdminKubeconfig,
		Volumes: storage.Folders(c.DataDir, c.Storage.Paths),
	}, purge)...)
}

func (c Config) stopPods(ctx context.Context, known []string) ([]string, error) {
	if !containerd.Answers(c.criEndpoint()) {
		return nil, nil // the containers of a runtime that has ended go with its shims
	}
	ctx, cancel := context.WithTimeout(ctx, stopPodsTimeout)
	defer cancel()
	return kubelet.StopPods(ctx, kubelet.Config{
		CRIEndpoint: c.criEndpoint(), SharedRuntime: c.CRIEndpoint != "", Owner: c.rootDirs().Link(),
	}, known)
}

// Fresh reports whether no Pod can be running here.
func (c Config) Fresh() bool {
	return !c.Containerd().Remains() && !containerd.Answers(c.criEndpoint())
}

// CheckHost checks what the host lacks for the role.
func (c Config) CheckHost() []checks.Finding {
	w := checks.NewWant(c.Config, c.Role, c.RunDir, c.Bundle.Files())
	w.OwnInterfaces = []string{network.Bridge} // an earlier run may have left it
	w.OwnRoutes, _ = network.Routes()          // routes that cannot be read are not known to be ours
	h := checks.Observe(w)
	if c.Role != instance.Server && os.Geteuid() == 0 {
		h.Kernel = network.Probe()
		var firewall network.Firewall
		firewall, h.FirewallError = network.ReadFirewall(c.ClusterPrefixes...)
		h.Firewall = checks.Firewall(firewall)
	}
	return checks.Check(h, w)
}
