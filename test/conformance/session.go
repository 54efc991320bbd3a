package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	// An image that fails to build costs its tests, not the run.
	build := images.Builder{Root: "../..", Dir: filepath.Join(o.out, "images"), Progress: step}
	if err := build.Build(ctx); err != nil {
		if ctx.Err() != nil {
			return err
		}
		step(err.Error())
	}
	if o.prepare {
		return nil
	}
	return test(ctx, o, programs, version, tests)
}

// test serves the images, brings up the cluster, runs the tests, and keeps what became of them.
func test(ctx context.Context, o options, programs suite.Programs, version string, tests []suite.Test) (err error) {
	registry, err := images.Serve(filepath.Join(o.out, "images"), images.Address)
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

	c := cluster.Cluster{Bin: filepath.Join(o.bin, "flyball"), DataDir: "/var/lib/flyball-conformance"}
	kubeconfig := o.kubeconfig
	if kubeconfig == "" {
		kubeconfig = c.Kubeconfig()
		if err := c.Up(ctx); err != nil {
			return err
		}
		defer func() {
			// Whatever has happened, also an interruption: the machine is left clean.
			end := context.WithoutCancel(ctx)
			err = errors.Join(err, c.Logs(filepath.Join(o.out, "cluster")))
			if !o.keep {
				err = errors.Join(err, c.Down(end))
			}
		}()
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
	times := filepath.Join(o.out, "seconds.json")
	seconds := readSeconds(times)
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
	err = errors.Join(runner.Run(ctx, rest), broken)
	keepSeconds(times, seconds, journal.Outcomes)
	if err == nil {
		err = results.WriteJUnit(filepath.Join(o.out, "junit.xml"), journal.Outcomes)
	}
	return journal.Outcomes, errors.Join(err, journal.Close(err == nil))
}

// conclude prints and records the results. It returns an error if a test fails that is recorded as passing, or, where
// nothing is recorded, if any fails.
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
	return nil
}

// readSeconds returns how long tests took in earlier runs, by name.
func readSeconds(path string) map[string]float64 {
	m := map[string]float64{}
	if body, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(body, &m)
	}
	return m
}

// keepSeconds is for the next run's order and time left: losing it loses nothing.
func keepSeconds(path string, m map[string]float64, outcomes []suite.Outcome) {
	for _, o := range outcomes {
		m[o.Name] = o.Seconds
	}
	if body, err := json.Marshal(m); err == nil {
		_ = os.WriteFile(path, body, 0o644)
	}
}
