//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"flyball.dev/cmd/flyball/internal/wiring"
	"flyball.dev/containerd"
	"flyball.dev/controlplane"
	"flyball.dev/host/checks"
	"flyball.dev/host/instance"
	"flyball.dev/host/launch"
	"flyball.dev/host/progress"
	"flyball.dev/host/status"
	"flyball.dev/join"
)

// gcPercent trades CPU for memory: the heap of an idle control plane is mostly caches that live for ever, and Go's
// default would let garbage grow to as much again before it is collected.
const gcPercent = 50

// hostCommands make a host a node or a server of a cluster. Nodes are Linux.
func hostCommands() []*cobra.Command {
	up, _ := newRoleCommand(instance.Up, "Start the server and the node agent of this machine",
		"Start the server and the node agent of this machine in one process, until it is interrupted.\n"+
			"Interrupting it leaves Pods running; `flyball down` stops them too.")
	server, _ := newRoleCommand(instance.Server, "Start only the server of this machine: the control plane and the controllers",
		"Start only the server: etcd, the Kubernetes control plane and Flyball's controllers, until it is interrupted.\n"+
			"`flyball agent` starts the other half, here or on another machine; `flyball up` is both.")
	agent, flags := newRoleCommand(instance.Agent, "Start only the node agent of this machine",
		"Start only the node agent: container runtime, node network, kubelet, service proxy and DNS, until it is interrupted.\n"+
			"With --server and --token this machine joins the cluster of another one, as `flyball token create` prints it there;\n"+
			"later starts need neither. Without, it is the node of the `flyball server` of this machine.")
	agent.Flags().StringVar(&flags.values.Server, "server", "", "URL of the server whose cluster to join, such as https://192.0.2.1:6443")
	agent.Flags().StringVar(&flags.values.Token, "token", "", "what to join with, from `flyball token create` on the server")
	return []*cobra.Command{up, server, agent, newDownCommand(), newStatusCommand(), newCheckCommand(), newImageCommand()}
}

func newRoleCommand(role instance.Role, short, long string) (*cobra.Command, *configFlags) {
	cmd := &cobra.Command{Use: string(role), Short: short, Long: long, Args: cobra.NoArgs}
	flags := addConfigFlags(cmd)
	detached := cmd.Flags().Bool("detach", false, "run in the background, and return once everything is up")
	background := cmd.Flags().Bool(launch.BackgroundFlag, false, "")
	_ = cmd.Flags().MarkHidden(launch.BackgroundFlag) // it exists
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		launch.LeaveShell()
		proxy := containerd.TakeProxy()
		ctx, stop := untilSignal(cmd.Context())
		defer stop()
		c, err := flags.loadRole(ctx, role)
		if err != nil {
			return err
		}
		c.Proxy = proxy
		o := launch.Options{
			Role: role, RunDir: c.RunDir, Config: c.FlyballConfiguration, Out: os.Stdout, Settled: controlplane.Settle,
		}
		if *detached && !*background { // however the flag was spelled, a child does not detach again
			return detach(ctx, c, o)
		}
		return start(ctx, c, o, *background)
	}
	return cmd, flags
}

// loadRole is load for a role that is about to start. A node agent joins here, before anything is started.
func (f *configFlags) loadRole(ctx context.Context, role instance.Role) (wiring.Config, error) {
	c, err := f.load()
	switch {
	case err != nil:
		return c, err
	case role != instance.Agent && c.Joined != nil:
		return c, fmt.Errorf("starting `flyball %s`: this machine is node %s of the cluster at %s (%s); `flyball agent` starts it, `flyball down --purge` makes it leave",
			role, c.Joined.NodeName, c.Joined.Server, c.AgentDir())
	case role != instance.Agent && c.Server != "":
		return c, fmt.Errorf("starting `flyball %s`: the configuration says that this machine joins the cluster at %s, which `flyball agent` does; remove server and token from it to make a cluster here",
			role, c.Server)
	case role != instance.Agent || c.Server == "" || len(instance.Running(instance.RunDir, instance.Agent)) > 0:
		return c, nil
	}
	began := time.Now()
	joined, err := join.Ensure(ctx, c.Joined, join.Config{
		Dir: c.AgentDir(), Server: c.Server, NodeName: c.NodeName, NodeIP: c.NodeAddrs[0],
	}, c.Token)
	if err != nil {
		return c, err
	}
	if joined {
		progress.New(os.Stdout, began).Done("joined "+c.Server, time.Since(began))
	}
	// The cluster's ranges and names replace the defaults. The token is not needed any more.
	if c, err = f.load(); err == nil {
		c.Token = ""
	}
	return c, err
}

// start runs the components of the role in this process until ctx ends. Pods run on, unless a first start fails: that is
// undone.
func start(ctx context.Context, c wiring.Config, o launch.Options, background bool) error {
	restarted := launch.IsRestarted()
	var err error
	if c.Restarter, err = launch.NewRestarter(ctx, c.Proxy); err != nil {
		return err
	}
	switch {
	case background:
		// The parent has checked the host. The working directory, which relative paths were resolved in, may go away.
		if err := os.Chdir("/"); err != nil {
			return fmt.Errorf("changing to the root directory: %w", err)
		}
		o.Out, o.Detached = nil, !restarted
	case !restarted: // a restarted process waits for what is missing since its start
		if err := checkHost(c, o.Role); err != nil {
			return err
		}
	}
	p, err := launch.Start(o)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := setUpLogging(p.Log, c.Logging.Verbosity); err != nil {
		return err
	}
	debug.SetGCPercent(gcPercent)
	components, fresh := c.Components(o.Role), c.Fresh()
	err = p.Run(ctx, components)
	if err != nil && fresh && o.Role != instance.Server && !components.Status.WasReady() {
		for _, step := range c.Teardown(false) {
			err = errors.Join(err, step.Run(context.WithoutCancel(ctx)))
		}
	}
	return err
}

// detach starts Flyball in the background. If it runs already with this data directory, there is nothing to do.
func detach(ctx context.Context, c wiring.Config, o launch.Options) error {
	running, err := status.Get(ctx, o.Role.Socket(o.RunDir))
	if err == nil && running.Role == string(o.Role) && running.DataDir == c.DataDir {
		fmt.Printf("Flyball is already running since %s (pid %d)\n", running.StartedAt.Format(time.DateTime), running.PID)
		return status.NotUp(running.Components)
	}
	began := time.Now()
	if err := checkHost(c, o.Role); err != nil {
		return err
	}
	if err := launch.Detach(ctx, o, os.Args[2:], c.Proxy); err != nil {
		return err
	}
	what := "Node " + c.NodeName + " is Ready"
	if o.Role == instance.Server {
		what = "The server is up"
	}
	fmt.Printf("%s after %.1fs. The log is below %s/log.\n", what, time.Since(began).Seconds(), c.DataDir)
	return nil
}

// checkHost refuses to start where the start would fail half-way.
func checkHost(c wiring.Config, role instance.Role) error {
	if pids := instance.Running(c.RunDir, role); len(pids) > 0 {
		return &instance.RunningError{PID: pids[0]}
	}
	began := time.Now()
	if err := checks.Missing(c.CheckHost(role)); err != nil {
		return fmt.Errorf("checking this host: %w", err)
	}
	progress.New(os.Stdout, began).Done("host checks", time.Since(began))
	return nil
}
