//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"flyball.dev/host/board"
	"flyball.dev/host/instance"
	"flyball.dev/host/status"
)

func newStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show each part: whether it is up, since when, its last error",
		Long:  "Show each part: whether it is up, since when, its last error. The exit code is 1 if anything is down.",
		Args:  cobra.NoArgs,
	}
	output := addOutputFlag(cmd, "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		all, err := statuses(cmd.Context())
		if err != nil {
			return err
		}
		if *output != "" {
			err = json.NewEncoder(cmd.OutOrStdout()).Encode(all)
		} else {
			err = printStatuses(cmd.OutOrStdout(), all, time.Now())
		}
		if err != nil {
			return err
		}
		if slices.ContainsFunc(all, func(s status.Status) bool { return !s.Up() }) {
			return errSilent
		}
		return nil
	}
	return cmd
}

// statuses asks every process of this machine.
func statuses(ctx context.Context) ([]status.Status, error) {
	var all []status.Status
	for _, socket := range instance.Sockets(instance.RunDir) {
		s, err := status.Get(ctx, socket)
		switch {
		case err == nil:
			all = append(all, *s)
		case !errors.Is(err, status.ErrNotRunning):
			return nil, err
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("asking for the status: %w; `flyball up --detach` starts it", status.ErrNotRunning)
	}
	return all, nil
}

func printStatuses(out io.Writer, all []status.Status, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "PART\tSTATE\tSINCE\tRESTARTS\tLAST ERROR")
	for _, s := range all {
		for _, p := range s.Parts {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", p.Name, p.State, duration.HumanDuration(now.Sub(p.Since)), p.Restarts, lastError(p, now))
		}
	}
	return w.Flush()
}

func lastError(p board.Part, now time.Time) string {
	if p.LastErrorTime == nil {
		return ""
	}
	return fmt.Sprintf("%s (%s ago)", p.LastError, duration.HumanDuration(now.Sub(*p.LastErrorTime)))
}
