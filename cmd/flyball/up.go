//go:build linux

package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"flyball.dev/cmd/flyball/internal/launch"
	"flyball.dev/host/checks"
	"flyball.dev/host/instance"
	"flyball.dev/host/progress"
	"flyball.dev/host/status"
)

func newUpCommand() *cobra.Command {
	cmd, _ := newRoleCommand(instance.Up, "Start the server and the node agent of this machine",
		"Start the server and the node agent of this machine in one process, until it is interrupted.\n"+
			"Interrupting it leaves Pods running; `flyball down` stops them too.")
	return cmd
}

func newServerCommand() *cobra.Command {
	cmd, _ := newRoleCommand(instance.Server, "Start only the server of this machine: the control plane and the controllers",
		"Start only the server: etcd, the Kubernetes control plane and Flyball's controllers, until it is interrupted.\n"+
			"`flyball agent` starts the other half, here or on another machine; `flyball up` is both.")
	return cmd
}

func newRoleCommand(role instance.Role, short, long string) (*cobra.Command, *configFlags) {
	cmd := &cobra.Command{Use: string(role), Short: short, Long: long, Args: cobra.NoArgs}
	flags := addConfigFlags(cmd)
	detach := cmd.Flags().Bool("detach", false, "run in the background, and return once everything is up")
	background := addBackgroundFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *detach && !*background { // however the flag was spelled, a child does not detach again
			return detached(cmd.Context(), role, flags)
		}
		return runRole(cmd.Context(), role, flags, *background)
	}
	return cmd, flags
}

// addBackgroundFlag adds the flag by which --detach tells the child that nobody looks at its output.
func addBackgroundFlag(cmd *cobra.Command) *bool {
	background := cmd.Flags().Bool("background", false, "")
	if err := cmd.Flags().MarkHidden("background"); err != nil {
		panic(err) // the flag was defined the line before
	}
	return background
}

func runRole(ctx context.Context, role instance.Role, flags *configFlags, background bool) error {
	proxy := leaveShell()
	ctx, stop := untilSignal(ctx)
	defer stop()
	set, err := flags.loadRole(ctx, role)
	if err != nil {
		return err
	}
	set.Proxy = proxy
	restarted := isRestarted()
	if set.Restart, err = restart(ctx, proxy); err != nil {
		return err
	}
	o := launch.Options{Role: role, Set: set}
	if background {
		// The parent has checked the host a moment ago. Its directory, where a relative path was found, may go away.
		if err := os.Chdir("/"); err != nil {
			return fmt.Errorf("changing to the root directory: %w", err)
		}
		if !restarted {
			o.Listening = os.NewFile(launch.ListeningFD, "listening")
		}
		return launch.Run(ctx, o)
	}
	o.Out = os.Stdout
	if !restarted { // what is missing since the first start is waited for
		if err := checkHost(o); err != nil {
			return err
		}
	}
	return launch.Run(ctx, o)
}

// detached starts Flyball in the background. If it runs already with this data directory, there is nothing to do.
func detached(ctx context.Context, role instance.Role, flags *configFlags) error {
	proxy := leaveShell()
	ctx, stop := untilSignal(ctx)
	defer stop()
	set, err := flags.loadRole(ctx, role)
	if err != nil {
		return err
	}
	set.Proxy = proxy
	o := launch.Options{Role: role, Set: set, Out: os.Stdout}
	running, err := status.Get(ctx, o.Role.Socket(instance.RunDir))
	if err == nil && running.Role == string(o.Role) && running.DataDir == set.Config.DataDir {
		fmt.Printf("Flyball is already running since %s (pid %d)\n", running.StartedAt.Format(time.DateTime), running.PID)
		return launch.Failed(running.Parts)
	}
	began := time.Now()
	if err := checkHost(o); err != nil {
		return err
	}
	args := append([]string{string(role), "--background"}, forChild(os.Args[2:])...)
	if err := launch.Detach(ctx, o, args, os.Stdout); err != nil {
		return err
	}
	what := "Node " + set.Config.NodeName + " is Ready"
	if role == instance.Server {
		what = "The server is up"
	}
	fmt.Printf("%s after %.1fs. The log is below %s/log.\n", what, time.Since(began).Seconds(), set.Config.DataDir)
	return nil
}

// forChild are the arguments of the process in the background: it does not detach again, and has no use for a token any
// more, which everybody could read there.
func forChild(args []string) []string {
	var out []string
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "--detach", strings.HasPrefix(a, "--detach="), strings.HasPrefix(a, "--token="):
		case a == "--token":
			i++
		default:
			out = append(out, a)
		}
	}
	return out
}

// checkHost refuses to start where it would fail half-way.
func checkHost(o launch.Options) error {
	if pids := instance.Running(instance.RunDir, o.Role); len(pids) > 0 {
		return &instance.RunningError{PID: pids[0]}
	}
	began := time.Now()
	want := hostWants(o.Set, o.Role)
	if err := checks.Missing(checks.Check(checks.Observe(want), want)); err != nil {
		return fmt.Errorf("checking this host: %w", err)
	}
	progress.New(o.Out, began).Done("host checks", time.Since(began))
	return nil
}

// leaveShell makes the process independent of the shell that started it: of its umask, of files that it left open, a lock
// perhaps, which would live as long as the container runtime does, and of its proxy, which it returns. It comes before
// the first request: Go reads the proxy from the environment once.
func leaveShell() (proxy []string) {
	setUmask()
	_ = unix.CloseRange(launch.ListeningFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) // Linux 5.11; not worth failing for
	return takeProxy()
}

// setUmask sets the umask of a service, whatever the shell has: what containers, their users and log shippers are to read is
// made with the mode that it says, and children such as the container runtime inherit it. Secrets do not depend on it:
// their files and directories are made for root alone.
func setUmask() { unix.Umask(0o022) }
