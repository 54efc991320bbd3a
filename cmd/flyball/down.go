//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"flyball.dev/host/instance"
	"flyball.dev/host/progress"
)

// stopTimeout is how long a process may take to stop its components before it is killed.
const stopTimeout = 30 * time.Second

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
		return down(cmd.Context(), flags, *purge)
	}
	return cmd
}

func down(ctx context.Context, flags *configFlags, purge bool) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	printer := progress.New(os.Stdout, time.Now())
	c, err := flags.loadInUse(instance.RunDir, printer.Warn)
	if err != nil {
		return err
	}
	if pids := instance.Running(c.RunDir, instance.Up); len(pids) > 0 {
		began := time.Now()
		// The agent of two is the younger process; it stops first.
		for _, pid := range slices.Backward(pids) {
			if err := instance.Terminate(ctx, pid, stopTimeout); err != nil {
				return err
			}
		}
		printer.Done("stopping flyball", time.Since(began))
	}
	// Nothing starts while this process removes.
	lock, err := instance.Acquire(c.RunDir, instance.Up)
	if err != nil {
		return err
	}
	defer lock.Release()
	var errs []error
	for _, step := range c.Teardown(purge) {
		began := time.Now()
		if err := step.Run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", step.Name, err))
			printer.Failed(step.Name, err)
			continue
		}
		printer.Done(step.Name, time.Since(began))
	}
	return errors.Join(errs...)
}
