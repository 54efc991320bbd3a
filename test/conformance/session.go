package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"flyball.dev/test/conformance/cluster"
	"flyball.dev/test/conformance/images"
	"flyball.dev/test/conformance/results"
	"flyball.dev/test/conformance/suite"
)

// session is one run from building to results.
func session(ctx context.Context, o options) error {
	step := func(text string) { fmt.Fprintln(os.Stderr, "  "+text) }
	version, err := suite.Version(ctx)
	if err != nil {
		return err
	}
	programs := suite.Programs{Dir: o.out}
	if err := programs.Build(ctx, version, step); err != nil {
		return err
	}
	all, err := programs.List(ctx)
	if err != nil {
		return err
	}
	tests, err := suite.Select(all, o.suite, o.focus, o.skip)
	if err != nil {
		return err
	}
	if o.list {
		for _, t := range tests {
			fmt.Println(t.Name)
		}
		return nil
	}
	if len(tests) == 0 {
		return fmt.Errorf("choosing tests: none of the %d of the suite %s matches FOCUS=%q SKIP=%q", len(all), o.suite, o.focus, o.skip)
	}
	// An image that fails to build costs its tests, not the run; but the subset needs each.
	build := images.Builder{Root: "../..", Dir: filepath.Join(o.out, "images"), Progress: step}
	if err := build.Build(ctx); err != nil {
		if ctx.Err() != nil || o.suite == "subset" {
			return err
		}
		step(err.Error())
	}
	if o.prepare {
		return nil
	}
	return test(ctx, o, programs, version, tests)
}

// test brings up the cluster, serves the images, runs the tests, and keeps what became of them.
func test(ctx context.Context, o options, programs suite.Programs, version string, tests []suite.Test) (err error) {
	c := cluster.Cluster{Bin: o.bin, DataDir: "/var/lib/flyball-conformance", Registry: images.Address}
	kubeconfig, addresses := o.kubeconfig, []string{images.Address}
	if kubeconfig == "" {
		kubeconfig = c.Kubeconfig()
		there := net.JoinHostPort(c.Address(), images.Port)
		addresses = append(addresses, there)
		fmt.Fprintln(os.Stderr, "  start the cluster")
		logs := filepath.Join(o.out, "cluster")
		if err := c.Up(ctx, images.Hosts(there), logs); err != nil {
			return err
		}
		defer func() {
			// Whatever has happened, also an interruption: the machine is left clean.
			err = errors.Join(err, c.Logs(logs))
			if !o.keep {
				err = errors.Join(err, c.Down(context.WithoutCancel(ctx)))
			}
		}()
	}
	registry, err := images.Serve(filepath.Join(o.out, "images"), addresses...)
	if err != nil {
		return err
	}
	defer func() { _ = registry.Close() }()
	list, err := images.RepoList(registry.Host())
	if err != nil {
		return fmt.Errorf("writing the repository list: %w", err)
	}
	repoList := filepath.Join(o.out, "repo-list.yaml")
	if err := os.WriteFile(repoList, list, 0o644); err != nil {
		return fmt.Errorf("writing the repository list: %w", err)
	}
	of := results.Run{Version: version, Suite: o.suite, Focus: o.focus, Skip: o.skip, Cluster: o.kubeconfig, Tests: len(tests)}
	outcomes, err := drive(ctx, o, programs, kubeconfig, repoList, of, tests)
	if err != nil {
		return err
	}
	return conclude(ctx, o, c, version, outcomes)
}

// drive runs those of the tests that an earlier, interrupted run has not, and returns the outcomes of all.
func drive(ctx context.Context, o options, programs suite.Programs, kubeconfig, repoList string, of results.Run, tests []suite.Test) ([]suite.Outcome, error) {
	journal, err := results.Open(filepath.Join(o.out, "journal.jsonl"), of, o.fresh)
	if err != nil {
		return nil, err
	}
	done := map[string]bool{}
	for _, outcome := range journal.Outcomes {
		done[outcome.Name] = true
	}
	logs := filepath.Join(o.out, "failed")
	if len(done) == 0 {
		_ = os.RemoveAll(logs)
	} else {
		fmt.Fprintf(os.Stderr, "  going on after %d of %d tests; FRESH=1 starts over\n", len(done), len(tests))
	}
	var rest []suite.Test
	for _, t := range tests {
		if !done[t.Name] {
			rest = append(rest, t)
		}
	}
	seconds := readSeconds(o.times(), o.long())
	estimate := func(t suite.Test) float64 { return guess(seconds, t.Name) }
	suite.Order(rest, estimate)
	p := newProgress(rest, o.workers, seconds)
	var broken error
	runner := suite.Runner{
		Programs: programs, Kubeconfig: kubeconfig, RepoList: repoList, LogDir: logs, Workers: o.workers, Limit: o.limit,
		Seconds: estimate, Started: p.started,
		Ended: func(outcome suite.Outcome) {
			p.ended(outcome)
			broken = errors.Join(broken, journal.Add(outcome))
		},
	}
	stop := p.run()
	err = errors.Join(runner.Run(ctx, rest), broken)
	stop()
	err = errors.Join(err, keepSeconds(o.times(), seconds, journal.Outcomes))
	if err == nil {
		err = results.WriteJUnit(filepath.Join(o.out, "junit.xml"), journal.Outcomes)
	}
	return journal.Outcomes, errors.Join(err, journal.Close(err == nil))
}

// conclude prints and records the results. It returns an error if a test fails that is recorded as passing.
func conclude(ctx context.Context, o options, c cluster.Cluster, version string, outcomes []suite.Outcome) error {
	count := map[suite.State]int{}
	for _, outcome := range outcomes {
		count[outcome.State]++
	}
	fmt.Printf("%d of %d passed, %d failed, %d skipped; %s/junit.xml, logs in %s/failed\n",
		count[suite.Passed], len(outcomes), count[suite.Failed], count[suite.Skipped], o.out, o.out)
	referenceFile := filepath.Join(filepath.Dir(o.record), "reference.json")
	if o.reference {
		return results.WriteReference(referenceFile, version, outcomes, time.Now())
	}
	if o.kubeconfig != "" {
		return nil
	}
	known, err := results.Read(o.record)
	if err != nil {
		return err
	}
	if lost := known.Lost(outcomes); len(lost) > 0 {
		return fmt.Errorf("comparing with %s: %d tests passed then and do not now:\n  %s", o.record, len(lost), strings.Join(lost, "\n  "))
	}
	if o.suite != "conformance" || o.focus+o.skip != "" {
		return nil
	}
	reference, err := results.ReadReference(referenceFile)
	if err != nil {
		return err
	}
	record := results.Record{
		Date: time.Now(), Version: version, Product: c.Version(ctx), Nodes: c.Nodes(),
		Outcomes: outcomes, Reference: reference.Failing, Unbuilt: images.Missing(),
	}
	if err := os.WriteFile(o.record, []byte(record.Markdown()), 0o644); err != nil {
		return fmt.Errorf("recording the results: %w", err)
	}
	return keepLong(o.long(), outcomes)
}

// times is a file with how long tests took here, and long one, in the repository, with those that take long anywhere.
func (o options) times() string { return filepath.Join(o.out, "seconds.json") }
func (o options) long() string  { return filepath.Join(filepath.Dir(o.record), "long.json") }

// longSeconds is when a test is long.
const longSeconds = 20

// readSeconds returns how long tests took in earlier runs, by name. What an earlier file says counts.
func readSeconds(paths ...string) map[string]float64 {
	all := map[string]float64{}
	for _, path := range slices.Backward(paths) {
		// Losing it loses nothing but order.
		if body, err := os.ReadFile(path); err == nil {
			_ = json.Unmarshal(body, &all)
		}
	}
	return all
}

// keepSeconds is for the next run's order and time left.
func keepSeconds(path string, seconds map[string]float64, outcomes []suite.Outcome) error {
	for _, o := range outcomes {
		seconds[o.Name] = o.Seconds
	}
	return writeJSON(path, seconds)
}

// keepLong writes how long those tests took that take long.
func keepLong(path string, outcomes []suite.Outcome) error {
	seconds := map[string]float64{}
	for _, o := range outcomes {
		if o.Seconds >= longSeconds {
			seconds[o.Name] = math.Round(o.Seconds)
		}
	}
	return writeJSON(path, seconds)
}

func writeJSON(path string, value any) error {
	body, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.WriteFile(path, append(body, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing how long tests took: %w", err)
	}
	return nil
}
