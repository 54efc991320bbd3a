//go:build linux

package main

import (
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"flyball.dev/containerd"
	"flyball.dev/controlplane"
	"flyball.dev/host/instance"
	"flyball.dev/host/launch"
	"flyball.dev/host/progress"
)

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
	agent.Flags().StringVar(&flags.Flags.Server, "server", "", "URL of the server whose cluster to join, such as https://192.0.2.1:6443")
	agent.Flags().StringVar(&flags.Flags.Token, "token", "", "what to join with, from `flyball token create` on the server")
	return []*cobra.Command{up, server, agent, newDownCommand(), newStatusCommand(), newCheckCommand(), newImageCommand()}
}

func newRoleCommand(role instance.Role, short, long string) (*cobra.Command, *configFlags) {
	cmd := &cobra.Command{Use: string(role), Short: short, Long: long, Args: cobra.NoArgs}
	flags := addConfigFlags(cmd)
	detach := cmd.Flags().Bool("detach", false, "run in the background, and return once everything is up")
	background := cmd.Flags().Bool(launch.BackgroundFlag, false, "")
	_ = cmd.Flags().MarkHidden(launch.BackgroundFlag) // it exists
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		launch.LeaveShell()
		proxy := containerd.TakeProxy()
		ctx, stop := untilSignal(cmd.Context())
		defer stop()
		c, err := wire(flags.LoadToStart(ctx, role, instance.RunDir))
		if err != nil {
			return err
		}
		c.Role, c.Proxy = role, proxy
		o := launch.Options{
			Role: role, RunDir: c.RunDir, Config: c.FlyballConfiguration, Background: *background,
			LogTo: setUpLogging, Settled: controlplane.Settle,
		}
		if *detach && !*background { // however the flag was spelled, a child does not detach again
			return launch.Detach(ctx, o, c, os.Args[2:], proxy)
		}
		if c.Restarter, err = launch.NewRestarter(ctx, proxy); err != nil {
			return err
		}
		return launch.Run(ctx, o, c)
	}
	return cmd, flags
}

func newDownCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop Flyball and every Pod of this machine",
		Long: "Stop Flyball and every Pod of this machine, and remove what they left in it: containers, mounts, network,\n" +
			"cgroups. Data stays for the next `flyball up`, unless it is to be purged.",
		Args: cobra.NoArgs,
	}
	flags := addConfigFlags(cmd)
	purge := cmd.Flags().Bool("purge", false, "remove all data too: the cluster, images, logs, the admin kubeconfig")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if os.Geteuid() != 0 {
			return errors.New("stopping flyball: running as an ordinary user; run flyball as root, for example with sudo")
		}
		ctx, stop := untilSignal(cmd.Context())
		defer stop()
		printer := progress.New(os.Stdout, time.Now())
		c, err := flags.loadInUse(printer.Warn)
		if err != nil {
			return err
		}
		return launch.Stop(ctx, c.RunDir, c, *purge, printer)
	}
	return cmd
}
