// Command envtest measures how long controller-runtime's envtest waits for its control plane to start and to stop: with
// Flyball's programs, with Flyball's programs and controllers behind them, and with upstream's kube-apiserver and etcd
// built from the same modules. All sides are measured in turn in one run, by the same code: envtest's own Start and Stop,
// which is what a test suite waits for. It needs no root and no cluster.
//
// Every run starts from an empty data directory. A few runs more stop while a client has watches open, as a suite does
// whose manager is still running. Peak memory is that of all processes of a side together.
//
// Clusters of package flyballtest are then taken back to a checkpoint after each of as many uses. To be in a known state
// again, a suite with upstream's programs has to stop and to start them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"flyball.dev/flyballtest"
	"flyball.dev/test/internal/program"
)

type options struct {
	bin, upstream string
	runs, watched int
	check         bool
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of the flyball binary")
	flag.StringVar(&o.upstream, "upstream", "bin/upstream", "directory of upstream's kube-apiserver and etcd")
	flag.IntVar(&o.runs, "runs", 10, "how often each side is started and stopped")
	flag.IntVar(&o.watched, "watched", 3, "how often each side is stopped with watches open")
	flag.BoolVar(&o.check, "check", false, "fail if a bar is missed")
	flag.Parse()
	ctrllog.SetLogger(logr.Discard()) // envtest's
	program.Main("bench", func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	flyball, err := filepath.Abs(filepath.Join(o.bin, "flyball"))
	if err != nil {
		return fmt.Errorf("resolving %s: %w", o.bin, err)
	}
	assets, err := ours(ctx, flyball)
	if err != nil {
		return err
	}
	upstream, err := filepath.Abs(o.upstream)
	if err != nil {
		return fmt.Errorf("resolving %s: %w", o.upstream, err)
	}
	sides := []*side{
		{name: "Flyball", assets: assets},
		{name: "upstream", assets: upstream},
		{name: "Flyball, controllers, 3 nodes", assets: assets, mode: "controllers,nodes=3"},
	}
	for i := range o.runs + o.watched {
		fmt.Fprintf(os.Stderr, "envtest: run %d of %d\n", i+1, o.runs+o.watched)
		for _, s := range sides {
			if err := s.measure(ctx, i >= o.runs); err != nil {
				return fmt.Errorf("measuring %s: %w", s.name, err)
			}
		}
	}
	clusters := []*restored{
		{name: "Flyball", options: []flyballtest.Option{flyballtest.WithoutControllers()}},
		{name: "Flyball, controllers, 3 nodes", options: []flyballtest.Option{flyballtest.WithNodes(3)}, pods: true},
	}
	for _, r := range clusters {
		if err := r.measure(ctx, flyball, o.runs); err != nil {
			return fmt.Errorf("measuring %s: %w", r.name, err)
		}
	}
	report(os.Stdout, sides)
	reportRestores(os.Stdout, clusters, sides[1])
	if o.check {
		return errors.Join(bars(sides[0], sides[1], sides[2])...)
	}
	return nil
}
