package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"flyball.dev/test/conformance/cluster"
	"flyball.dev/test/conformance/images"
	"flyball.dev/test/conformance/results"
	"flyball.dev/test/conformance/suite"
)

// session is one run from building to results.
func session(ctx context.Context, o options) error {
	step := func(text string) { fmt.Fprintln(os.Stderr, "  "+text) }
	c := cluster.Cluster{Bin: o.bin, DataDir: "/var/lib/flyball-conformance", Registry: images.Address}
	of := results.Run{Suite: o.suite, Focus: o.focus, Skip: o.skip, Cluster: o.kubeconfig}
	err := o.check(c, &of)
	if err != nil {
		return err
	}
	if of.Version, err = suite.Version(ctx); err != nil {
		return err
	}
	programs := suite.Programs{Dir: o.out}
	if o.suite == suite.StorageExternal {
		programs.Driver = o.beside("testdriver.yaml")
	}
	if err := programs.Build(ctx, of.Version, step); err != nil {
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
	if of.Tests = len(tests); of.Tests == 0 {
		return fmt.Errorf("choosing tests: none of the %d of the suite %s matches FOCUS=%q SKIP=%q", len(all), o.suite, o.focus, o.skip)
	}
	// An image that fails to build costs its tests, not the run; but the subset needs each.
	build := images.Builder{Root: "../..", Dir: filepath.Join(o.out, "images"), Progress: step}
	if err := build.Build(ctx, images.Names(slices.ContainsFunc(tests, suite.Test.Mock))...); err != nil {
		if ctx.Err() != nil || o.suite == "subset" {
			return err
		}
		step(err.Error())
	}
	if o.prepare {
		return nil
	}
	return test(ctx, o, c, programs, of, tests)
}

// export writes an image to a file that `flyball image import` reads.
func export(ctx context.Context, o options) error {
	build := images.Builder{Root: "../..", Dir: filepath.Join(o.out, "images"), Progress: func(text string) { fmt.Fprintln(os.Stderr, "  "+text) }}
	if err := build.Build(ctx, o.image); err != nil {
		return err
	}
	return build.Export(o.image, o.to)
}

// check refuses at once what would fail after minutes of building, and notes which build of Flyball the run is of.
func (o options) check(c cluster.Cluster, of *results.Run) error {
	if _, err := suite.Select(nil, o.suite, o.focus, o.skip); err != nil && o.suite != "subset" {
		return err
	}
	// A mistake in the file costs the results of an hour otherwise.
	if _, err := results.ReadReasons(o.reasons()); err != nil {
		return err
	}
	if o.list || o.prepare {
		return nil
	}
	if o.kubeconfig != "" {
		if _, err := os.Stat(o.kubeconfig); err != nil {
			return fmt.Errorf("reading KUBECONFIG: %w", err)
		}
		return nil
	}
	if err := c.Check(); err != nil {
		return err
	}
	build, err := c.Build()
	of.Product = build
	return err
}

// test runs those of the tests that an earlier, interrupted run has not, and concludes.
func test(ctx context.Context, o options, c cluster.Cluster, programs suite.Programs, of results.Run, tests []suite.Test) error {
	reasons, err := results.ReadReasons(o.reasons())
	if err != nil {
		return err
	}
	tests, skipped := reasons.Skip(tests)
	if len(skipped) > 0 {
		fmt.Fprintf(os.Stderr, "  %d tests cannot run here; %s says why\n", len(skipped), o.reasons())
	}
	journal, err := results.Open(filepath.Join(o.out, "journal.jsonl"), of, o.fresh)
	if err != nil {
		return err
	}
	rest := remaining(tests, journal.Outcomes)
	if len(rest) < len(tests) {
		fmt.Fprintf(os.Stderr, "  going on after %d of %d tests; FRESH=1 starts over\n", len(tests)-len(rest), len(tests))
	} else {
		_ = os.RemoveAll(o.logs())
	}
	if len(rest) > 0 {
		err = onCluster(ctx, o, c, programs, journal, rest)
	}
	if err != nil {
		return errors.Join(err, journal.Close(false))
	}
	if err := results.WriteJUnit(filepath.Join(o.out, "junit.xml"), journal.Outcomes); err != nil {
		return errors.Join(err, journal.Close(false))
	}
	concluded := conclude(ctx, o, c, of.Version, append(journal.Outcomes, skipped...))
	// A complete run of the kind job takes too long to be repeated for a sentence that is missing in kind.yaml.
	_, explained := results.PartOf(o.suite)
	return errors.Join(concluded, journal.Close(concluded == nil || !explained || !o.complete()))
}

// remaining returns the tests without an outcome.
func remaining(tests []suite.Test, outcomes []suite.Outcome) []suite.Test {
	done := map[string]bool{}
	for _, outcome := range outcomes {
		done[outcome.Name] = true
	}
	return slices.DeleteFunc(slices.Clone(tests), func(t suite.Test) bool { return done[t.Name] })
}

// onCluster brings up the cluster, serves the images, and runs the tests.
func onCluster(ctx context.Context, o options, c cluster.Cluster, programs suite.Programs, journal *results.Journal, tests []suite.Test) (err error) {
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
	return drive(ctx, o, &suite.Runner{Programs: programs, Kubeconfig: kubeconfig, RepoList: repoList}, journal, tests)
}

// drive runs the tests, and keeps what became of them.
func drive(ctx context.Context, o options, runner *suite.Runner, journal *results.Journal, tests []suite.Test) error {
	seconds := readSeconds(o.times(), o.long())
	estimate := func(t suite.Test) float64 { return guess(seconds, t.Name) }
	suite.Order(tests, estimate)
	p := newProgress(tests, o.workers, seconds)
	var broken error
	runner.LogDir, runner.Workers, runner.Limit = o.logs(), o.workers, o.limit
	runner.Seconds, runner.Started = estimate, p.started
	runner.Ended = func(outcome suite.Outcome) {
		p.ended(outcome)
		broken = errors.Join(broken, journal.Add(outcome))
	}
	stop := p.run()
	err := errors.Join(runner.Run(ctx, tests), broken)
	stop()
	return errors.Join(err, keepSeconds(o.times(), seconds, journal.Outcomes))
}

// logs is a directory with the log of each failed test.
func (o options) logs() string { return filepath.Join(o.out, "failed") }

// beside is a file in the directory of RESULTS.md.
func (o options) beside(name string) string { return filepath.Join(filepath.Dir(o.record), name) }
