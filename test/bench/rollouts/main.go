// Command rollouts measures a Deployment from 0 to many Pods, and a rolling update, on simulated capacity: Pods become
// Ready as soon as they are seen, and no container runs. It compares Flyball's loops with upstream's controller manager,
// at its default client limits and at raised ones, on the same machine in the same run.
//
// Each side has a fresh kube-apiserver and etcd of its own, the same ones, and the same simulated kubelet; only who turns
// the Deployment into Pods differs. It needs neither root nor ports that a cluster uses.
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

	"flyball.dev/test/internal/program"
)

type options struct {
	bin, yardstick string
	pods, update   int
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of the flyball binary")
	flag.StringVar(&o.yardstick, "upstream", filepath.Join(os.TempDir(), "yardstick", "bin"), "directory of upstream's kube-controller-manager; without it only Flyball is measured")
	flag.IntVar(&o.pods, "pods", 1000, "Pods of the Deployment that starts from 0")
	flag.IntVar(&o.update, "update", 500, "Pods of the Deployment that is updated")
	flag.Parse()
	ctrl.SetLogger(logr.Discard()) // envtest's, and client-go's: watches that end with their side are no news
	klog.SetLogger(logr.Discard())
	program.Main("bench", func(ctx context.Context) error { return run(ctx, o) })
}

// figures are the times of one side.
type figures struct {
	side        string
	up, rolling time.Duration
}

func run(ctx context.Context, o options) error {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return fmt.Errorf("resolving %s: %w", o.bin, err)
	}
	var all []figures
	for _, s := range sides(bin, o.yardstick) {
		fmt.Fprintf(os.Stderr, "%s: 0 to %d Pods, then a rolling update of %d\n", s.name, o.pods, o.update)
		f, err := measure(ctx, s, o)
		if err != nil {
			return fmt.Errorf("measuring %s: %w", s.name, err)
		}
		all = append(all, f)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "SIDE\t0 TO %d PODS\tROLLING UPDATE OF %d\tRATIO TO OURS\n", o.pods, o.update)
	for _, f := range all {
		fmt.Fprintf(w, "%s\t%.2f s\t%.2f s\t%.1f / %.1f\n", f.side, f.up.Seconds(), f.rolling.Seconds(),
			f.up.Seconds()/all[0].up.Seconds(), f.rolling.Seconds()/all[0].rolling.Seconds())
	}
	return w.Flush()
}

// measure brings one side up, takes both figures, and takes it down again whatever happens.
func measure(ctx context.Context, s side, o options) (figures, error) {
	f := figures{side: s.name}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	c, stop, err := s.start(ctx, fail)
	defer stop()
	if err != nil {
		return f, err
	}
	// The first Deployment of a controller finds cold caches and connections; nobody waits for that one.
	if _, err := c.deploy(ctx, "warm-up", 1); err != nil {
		return f, err
	}
	if f.up, err = c.deploy(ctx, "large", o.pods); err != nil {
		return f, err
	}
	if err := c.remove(ctx, "large"); err != nil {
		return f, err
	}
	if _, err = c.deploy(ctx, "updated", o.update); err != nil {
		return f, err
	}
	f.rolling, err = c.roll(ctx, "updated")
	return f, err
}
