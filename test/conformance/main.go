// Command conformance runs Kubernetes' own end-to-end suite against Flyball, or against any other cluster. `make
// conformance` calls it; README.md says how.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"flyball.dev/test/conformance/suite"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	suite, focus, skip string
	kubeconfig         string
	bin, out, record   string
	reference          bool
	workers            int
	limit              time.Duration
	fresh, prepare     bool
	list, keep         bool
	image, to          string
}

func run(ctx context.Context, args []string) error {
	var o options
	f := flag.NewFlagSet("conformance", flag.ContinueOnError)
	f.StringVar(&o.suite, "suite", "conformance", "which tests: "+suite.Suites)
	f.StringVar(&o.focus, "focus", "", "run only the tests whose name matches this regular expression")
	f.StringVar(&o.skip, "skip", "", "do not run the tests whose name matches this regular expression")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "test this cluster instead of a fresh one of Flyball's")
	f.BoolVar(&o.reference, "reference", false, "the cluster is upstream's own: keep what it fails in reference.json")
	f.StringVar(&o.bin, "bin", "../../bin", "directory with flyball")
	f.StringVar(&o.out, "out", "../../bin/conformance", "directory for programs, images, logs and results")
	f.StringVar(&o.record, "record", "RESULTS.md", "file with the recorded results; kind.yaml, kind.txt and others lie beside it")
	f.IntVar(&o.workers, "workers", min(5*runtime.NumCPU(), 16), "how many tests run at once; most of them mostly wait, and two nodes take 220 Pods")
	f.DurationVar(&o.limit, "limit", 20*time.Minute, "how long one test may take")
	f.BoolVar(&o.fresh, "fresh", false, "start over, even if an interrupted run could go on")
	f.BoolVar(&o.prepare, "prepare", false, "build programs and images, and stop")
	f.BoolVar(&o.list, "list", false, "print the names of the tests, and stop")
	f.StringVar(&o.image, "image", "", "build this image, write it to a tar file, and stop")
	f.StringVar(&o.to, "to", "image.tar", "the tar file")
	f.BoolVar(&o.keep, "keep", false, "leave the cluster running")
	if err := f.Parse(args); err != nil {
		return err
	}
	for _, path := range []*string{&o.bin, &o.out, &o.record, &o.kubeconfig, &o.to} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
	}
	if o.image != "" {
		return export(ctx, o)
	}
	return session(ctx, o)
}
