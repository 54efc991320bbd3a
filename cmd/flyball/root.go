package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"flyball.dev/controlplane"
	"flyball.dev/host/logging"
)

// errSilent ends the program with exit code 1 when the command has already printed why.
var errSilent = errors.New("the command failed")

// run is the program. Called by the name of another program, it is that program.
func run(ctx context.Context, args []string) error {
	if program := programNamed(args[0]); program != nil {
		return program(args[1:])
	}
	root := &cobra.Command{
		Use:   "flyball",
		Short: "A complete Kubernetes in one program",
		Long: "Flyball is a complete Kubernetes in one program: `flyball up` makes this machine a cluster of one node.\n" +
			"Errors are written to standard error, and the exit code is 1 then.",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(hostCommands()...)
	root.AddCommand(
		newKubectlCommand(), newRolloutCommand(), newPlanCommand(), newControllersCommand(), newTokenCommand(), newVolumeCommand(), newEnvtestCommand(),
		newVersionCommand(),
	)
	// Upstream's packages add flags of their own programs to every command's, such as --version.
	pflag.CommandLine = pflag.NewFlagSet(root.Name(), pflag.ContinueOnError)
	root.SetArgs(args[1:])
	return root.ExecuteContext(ctx)
}

// untilSignal returns a context that ends at the first signal. The second ends the process.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// runE runs a command.
type runE = func(cmd *cobra.Command, args []string) error

// setUpLogging sends all logs of this process to w. Call it once, before anything logs.
func setUpLogging(w io.Writer, verbosity int) error {
	return controlplane.LogTo(logging.Setup(w, verbosity), verbosity)
}
