// Command rollouts measures a Deployment from 0 to many Pods, and a rolling update, on simulated capacity: Pods become
// Ready as soon as they are seen, and no container runs. It compares Flyball's loops with upstream's controller manager,
// at its default client limits and at raised ones, on the same machine in the same run.
//
// Each side has a fresh kube-apiserver and etcd of its own, the same ones, and the same simulated kubelet; only who turns
// the Deployment into Pods differs. The sides take turns, and medians count; upstream at its default limits, which waits
// for its own rate limit, has one turn. It needs neither root nor ports that a cluster uses.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"flyball.dev/test/bench/internal/stats"
	"flyball.dev/test/internal/program"
)

type options struct {
	bin, yardstick string
	pods, update   int
	runs           int
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of the flyball binary")
	flag.StringVar(&o.yardstick, "upstream", filepath.Join(os.TempDir(), "yardstick", "bin"), "directory of upstream's kube-controller-manager; without it only Flyball is measured")
	flag.IntVar(&o.pods, "pods", 1000, "Pods of the Deployment that starts from 0")
	flag.IntVar(&o.update, "update", 500, "Pods of the Deployment that is updated")
	flag.IntVar(&o.runs, "runs", 5, "turns of each side, of which the median counts")
	flag.Parse()
	ctrl.SetLogger(logr.Discard()) // envtest's, and client-go's: watches that end with their side are no news
	klog.SetLogger(logr.Discard())
	program.Main("bench", func(ctx context.Context) error { return run(ctx, o) })
}

// figures are the times of one side, of each turn.
type figures struct {
	up, rolling []time.Duration
}

func run(ctx context.Context, o options) error {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return fmt.Errorf("resolving %s: %w", o.bin, err)
	}
	if o.runs < 1 {
		return fmt.Errorf("-runs is %d; it must be at least 1", o.runs)
	}
	all := sides(bin, o.yardstick)
	took := make([]figures, len(all))
	for turn := range o.runs {
		for i, s := range all {
			if turn > 0 && s.once {
				continue
			}
			fmt.Fprintf(os.Stderr, "%s, turn %d: 0 to %d Pods, then a rolling update of %d\n", s.name, turn+1, o.pods, o.update)
			up, rolling, err := measure(ctx, s, o)
			if err != nil {
				return fmt.Errorf("measuring %s: %w", s.name, err)
			}
			took[i].up, took[i].rolling = append(took[i].up, up), append(took[i].rolling, rolling)
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "MEDIAN\tTURNS\t0 TO %d PODS\tROLLING UPDATE OF %d\tRATIO TO OURS\n", o.pods, o.update)
	medians := func(i int) (up, rolling float64) {
		return stats.Median(took[i].up).Seconds(), stats.Median(took[i].rolling).Seconds()
	}
	ourUp, ourRolling := medians(0)
	for i, s := range all {
		up, rolling := medians(i)
		fmt.Fprintf(w, "%s\t%d\t%.2f s\t%.2f s\t%.1f / %.1f\n", s.name, len(took[i].up), up, rolling, up/ourUp, rolling/ourRolling)
	}
	return w.Flush()
}

// measure brings one side up, takes both figures, and takes it down again whatever happens.
func measure(ctx context.Context, s side, o options) (up, rolling time.Duration, err error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	c, stop, err := s.start(ctx, fail)
	defer stop()
	if err != nil {
		return 0, 0, err
	}
	// The first Deployment of a controller finds cold caches and connections; nobody waits for that one.
	if _, err := c.deploy(ctx, "warm-up", 1); err != nil {
		return 0, 0, err
	}
	if up, err = c.deploy(ctx, "large", o.pods); err != nil {
		return 0, 0, err
	}
	if err := c.remove(ctx, "large"); err != nil {
		return 0, 0, err
	}
	if _, err = c.deploy(ctx, "updated", o.update); err != nil {
		return 0, 0, err
	}
	rolling, err = c.roll(ctx, "updated")
	return up, rolling, err
}
