// Command compat runs controller-runtime's own test suites twice, with upstream's kube-apiserver and etcd and with
// Flyball's, and compares them test by test. It fails if a test passes with upstream's and does not with Flyball's, and
// names those that fail with upstream's, too.
//
// The suites are those of the version in go.mod, copied from the module cache, with the Kubernetes modules of go.mod. Each
// package's tests are compiled once and run one package after the other. A package in which Flyball's are worse is run a
// second time on both sides, since some of these tests depend on the clock: a test passes that has passed once.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"flyball.dev/test/internal/program"
)

type options struct {
	upstream, flyball, out, packages string
}

func main() {
	var o options
	flag.StringVar(&o.upstream, "upstream", "bin/upstream", "directory of upstream's kube-apiserver, etcd and kubectl")
	flag.StringVar(&o.flyball, "flyball", "", "directory of Flyball's, as `flyball envtest` prints it")
	flag.StringVar(&o.out, "out", "bin/envtest-compat", "directory of the copied module, the test programs and the logs")
	flag.StringVar(&o.packages, "packages", "./pkg/...", "which packages of controller-runtime to test")
	flag.Parse()
	program.Main("envtest-compat", func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	for _, path := range []*string{&o.upstream, &o.flyball, &o.out} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return fmt.Errorf("resolving %s: %w", *path, err)
		}
		*path = abs
	}
	m, err := copyModule(ctx, o.out)
	if err != nil {
		return err
	}
	packages, err := m.list(ctx, o.packages)
	if err != nil {
		return err
	}
	sides := []side{{name: "upstream", assets: o.upstream}, {name: "flyball", assets: o.flyball}}
	var all []comparison
	for i, p := range packages {
		fmt.Fprintf(os.Stderr, "[%d/%d] %s\n", i+1, len(packages), p.name())
		tests, err := m.compile(ctx, p)
		if err != nil {
			return err
		}
		c := comparison{pkg: p}
		for try := range 2 {
			for s, all := range []*outcomes{&c.upstream, &c.flyball} {
				got, err := sides[s].run(ctx, m, p, tests, try)
				if err != nil {
					return err
				}
				*all = all.or(got)
			}
			if len(c.worse()) == 0 {
				break
			}
		}
		_ = os.Remove(tests) // 60 MB each
		all = append(all, c)
	}
	return report(os.Stdout, all)
}

// report prints a line per package, then what differs.
func report(w *os.File, all []comparison) error {
	fmt.Fprintf(w, "%-44s %21s   %21s\n", "controller-runtime package", "upstream", "Flyball")
	fmt.Fprintf(w, "%-44s %6s %6s %7s   %6s %6s %7s\n", "", "passed", "failed", "skipped", "passed", "failed", "skipped")
	var worse []string
	var total [2]counts
	for _, c := range all {
		u, f := count(c.upstream), count(c.flyball)
		total[0], total[1] = total[0].plus(u), total[1].plus(f)
		fmt.Fprintf(w, "%-44s %6d %6d %7d   %6d %6d %7d\n", c.pkg.name(), u.passed, u.failed, u.skipped, f.passed, f.failed, f.skipped)
		for _, test := range c.worse() {
			worse = append(worse, fmt.Sprintf("%s: %s: passed with upstream's, %s with Flyball's", c.pkg.name(), test, cmp.Or(c.flyball[test], "missing")))
			fmt.Fprintf(w, "  passes with upstream's only: %s\n", test)
		}
		for _, test := range c.better() {
			fmt.Fprintf(w, "  passes with Flyball's only: %s\n", test)
		}
		for _, test := range c.both() {
			fmt.Fprintf(w, "  fails with both: %s\n", test)
		}
	}
	u, f := total[0], total[1]
	fmt.Fprintf(w, "%-44s %6d %6d %7d   %6d %6d %7d\n", "all", u.passed, u.failed, u.skipped, f.passed, f.failed, f.skipped)
	if len(worse) == 0 {
		return nil
	}
	errs := []error{fmt.Errorf("%d tests pass with upstream's only", len(worse))}
	for _, line := range worse {
		errs = append(errs, errors.New(line))
	}
	return errors.Join(errs...)
}
