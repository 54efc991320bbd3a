// Command bench measures Flyball and, on the same machine in the same run, upstream's own processes,
// and prints both with their ratio. It needs root, ports 6443, 10250 and 16443, and no cluster running.
//
// Each side starts from an empty data directory. A figure is taken by the same code on both sides: times from
// watches and from one /readyz probe every 10 ms, memory and CPU from /proc. Shims are not counted: both sides
// run the same one per Pod. What is written is that of the block device under the data directory, so anything else that
// writes to it meanwhile counts too.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"flyball.dev/test/internal/program"
)

// What an idle node writes to its disk takes this long to measure, per side. Less is possible by flag,
// and then the figure is not that of an idle node:
//
// Every five minutes kube-apiserver compacts etcd to where it was five minutes before. So what the bench
// did is removed up to ten minutes later, and until then that is three quarters of what is written.
//
// Every five minutes, too, etcd brings its log into Flyball's database, which is the larger half of
// what an idle node writes. A shorter window has it once or not at all.
const (
	settlePeriod = 11 * time.Minute
	diskPeriod   = 5 * time.Minute
)

type options struct {
	bin       string
	yardstick string
	pods      int
	burst     int
	claims    int
	idle      time.Duration
	settle    time.Duration
	disk      time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of the flyball binary and its bundled programs")
	flag.StringVar(&o.yardstick, "yardstick", "", "directory of upstream.sh; without it only Flyball is measured")
	flag.IntVar(&o.pods, "pods", 50, "Pods started one at a time")
	flag.IntVar(&o.burst, "burst", 40, "Pods created at once")
	flag.IntVar(&o.claims, "claims", 50, "claims made one at a time, each with a Pod")
	flag.DurationVar(&o.idle, "idle", time.Minute, "how long the idle cluster is watched")
	flag.DurationVar(&o.settle, "settle", settlePeriod, "how long nothing happens before that; kube-apiserver has what did happen removed from etcd's database within ten minutes")
	flag.DurationVar(&o.disk, "disk", diskPeriod, "how long the disk is watched under an idle cluster; etcd has Flyball's database written every five minutes")
	flag.Parse()
	program.Main("bench", func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return fmt.Errorf("resolving %s: %w", o.bin, err)
	}
	ours, err := newFlyball(bin)
	if err != nil {
		return err
	}
	sides := []*side{ours}
	if o.yardstick != "" {
		upstream, err := newUpstream(ctx, o.yardstick)
		if err != nil {
			return err
		}
		sides = append(sides, upstream)
	}
	results := make([]*figures, 0, len(sides))
	for _, s := range sides {
		f, err := measure(ctx, s, o)
		if err != nil {
			return fmt.Errorf("measuring %s: %w", s.name, err)
		}
		results = append(results, f)
	}
	report(os.Stdout, results)
	return nil
}

// measure brings one side up, takes every figure, and takes it down again whatever happens.
func measure(ctx context.Context, s *side, o options) (f *figures, err error) {
	progressf("%s: starting from an empty data directory", s.name)
	defer func() {
		// A cancelled run must clean up as well.
		err = errors.Join(err, s.down(context.WithoutCancel(ctx)))
	}()
	f = &figures{side: s.name}
	c, err := s.start(ctx, f)
	if err != nil {
		return nil, err
	}
	progressf("%s: %d Pods one at a time, then %d at once", s.name, o.pods, o.burst)
	if err := c.podLatency(ctx, o.pods, f); err != nil {
		return nil, err
	}
	if err := c.burst(ctx, o.burst, f); err != nil {
		return nil, err
	}
	if err := s.watchClaims(ctx, c, o, f); err != nil {
		return nil, err
	}
	progressf("%s: idle for %v", s.name, o.idle)
	if err := s.watchIdle(ctx, o.idle, f); err != nil {
		return nil, err
	}
	progressf("%s: idle with %d Pods for %v", s.name, diskPods, o.settle+o.disk)
	return f, s.watchDisk(ctx, c, o, f)
}

func progressf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
