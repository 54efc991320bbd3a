package main

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"flyball.dev/controllers/rollout"
)

func newRolloutCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "Watch, undo, pause, resume and restart rollouts, of apps.flyball.dev too",
		Long: "What kubectl rollout does, for Deployments of apps.flyball.dev and of apps. As a kubectl plugin (this program under\n" +
			"the name kubectl-flyball) it is `kubectl flyball rollout`.",
	}
	cluster := addClusterFlags(cmd)
	find := func(ctx context.Context, reference string) (*rollout.Rollout, error) {
		c, namespace, err := cluster.connect()
		if err != nil {
			return nil, err
		}
		return rollout.Find(ctx, c, namespace, reference)
	}
	cmd.AddCommand(
		newRolloutStatusCommand(find), newRolloutHistoryCommand(find), newRolloutUndoCommand(find),
		newRolloutVerb(find, "pause", "Keep a Deployment from rolling anything out", "paused", (*rollout.Rollout).Pause),
		newRolloutVerb(find, "resume", "End a pause", "resumed", (*rollout.Rollout).Resume),
		newRolloutVerb(find, "restart", "Replace all Pods by new ones of the same template", "restarted",
			func(r *rollout.Rollout, ctx context.Context) error { return r.Restart(ctx, time.Now()) }),
	)
	return asGroup(cmd)
}

// asGroup makes a command of its subcommands alone: without one it shows them, and with another it fails.
func asGroup(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}

// oneDeployment is for commands that are about one Deployment.
func oneDeployment(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s: name one Deployment as KIND/NAME, such as deployment/web", cmd.CommandPath())
	}
	return nil
}

// findRollout finds what KIND/NAME names.
type findRollout func(ctx context.Context, reference string) (*rollout.Rollout, error)

func newRolloutVerb(find findRollout, verb, short, done string, do func(*rollout.Rollout, context.Context) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " KIND/NAME", Short: short, Args: oneDeployment,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := do(r, cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", r, done)
			return nil
		},
	}
}

func newRolloutStatusCommand(find findRollout) *cobra.Command {
	cmd := &cobra.Command{
		Use: "status KIND/NAME", Short: "Show how far a rollout is, until it is over", Args: oneDeployment,
		Long: "Show how far a rollout is, until it is over. The exit code is 1 if it failed or was rolled back, and 0 if it is\n" +
			"complete or waits at its partition.",
	}
	watch := cmd.Flags().BoolP("watch", "w", true, "wait until the rollout is over")
	timeout := cmd.Flags().Duration("timeout", 0, "how long to wait at most; 0 is for ever")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := untilSignal(cmd.Context())
		defer stop()
		if *timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("it is not over after %v", *timeout))
			defer cancel()
		}
		r, err := find(ctx, args[0])
		if err != nil {
			return err
		}
		return r.Status(ctx, *watch, func(message string) { fmt.Fprintln(cmd.OutOrStdout(), message) })
	}
	return cmd
}

func newRolloutHistoryCommand(find findRollout) *cobra.Command {
	cmd := &cobra.Command{Use: "history KIND/NAME", Short: "Show the revisions of a Deployment, or one of them", Args: oneDeployment}
	revision := cmd.Flags().Int64("revision", 0, "show the Pod template of this revision")
	output := addOutputFlag(cmd, "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, err := find(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		if *revision != 0 {
			shown, err := r.Show(cmd.Context(), *revision)
			if err != nil {
				return err
			}
			if *output != "" {
				return json.NewEncoder(out).Encode(shown)
			}
			data, err := yaml.Marshal(shown)
			if err != nil {
				return fmt.Errorf("encoding: %w", err)
			}
			_, err = out.Write(data)
			return err
		}
		history, err := r.History(cmd.Context())
		if err != nil {
			return err
		}
		if *output != "" {
			return json.NewEncoder(out).Encode(history)
		}
		w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
		fmt.Fprintf(out, "%s\n", r)
		fmt.Fprintln(w, "REVISION\tREPLICA-SET\tNOTE\tCHANGE-CAUSE")
		for _, h := range history {
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", h.Number, h.ReplicaSet, orNone(h.Note), orNone(h.ChangeCause))
		}
		return w.Flush()
	}
	return cmd
}

func newRolloutUndoCommand(find findRollout) *cobra.Command {
	cmd := &cobra.Command{Use: "undo KIND/NAME", Short: "Roll back to an earlier revision", Args: oneDeployment}
	revision := cmd.Flags().Int64("to-revision", 0, "the revision to roll back to (default: the one before the current)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, err := find(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		to, err := r.Undo(cmd.Context(), *revision)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s rolled back to revision %d\n", r, to)
		return nil
	}
	return cmd
}

func orNone(text string) string {
	if text == "" {
		return "<none>"
	}
	return text
}
