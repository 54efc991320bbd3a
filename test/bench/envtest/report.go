package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"flyball.dev/test/bench/internal/stats"
)

// The bars: how much of upstream's median each may need.
const (
	readyBar           = 0.7
	stopBar            = 0.3
	readyControllerBar = 1.2
)

// report prints medians, and their ratio to upstream's.
func report(w io.Writer, sides []*side) {
	upstream := sides[1]
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer func() { _ = t.Flush() }()
	_, _ = fmt.Fprintf(t, "envtest, median of %d\tready ms\tratio\tstop ms\tratio\twith watches open\tratio\tpeak MB\tratio\n", len(upstream.ready))
	for _, s := range sides {
		_, _ = fmt.Fprintf(t, "%s\t%d\t%.2f\t%d\t%.2f\t%d\t%.2f\t%d\t%.2f\n", s.name,
			stats.Median(s.ready).Milliseconds(), ratio(s.ready, upstream.ready),
			stats.Median(s.stop).Milliseconds(), ratio(s.stop, upstream.stop),
			stats.Median(s.stopWatched).Milliseconds(), ratio(s.stopWatched, upstream.stopWatched),
			stats.Median(s.peak)>>20, ratio(s.peak, upstream.peak))
	}
}

// reportRestores prints how long it takes to be in a known state again.
func reportRestores(w io.Writer, clusters []*restored, upstream *side) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer func() { _ = t.Flush() }()
	_, _ = fmt.Fprintf(t, "\nbetween tests, median of %d\tcheckpoint ms\trestore ms\tratio\n", len(clusters[0].restore))
	again := stats.Median(upstream.stop) + stats.Median(upstream.ready)
	for _, r := range clusters {
		back := stats.Median(r.restore)
		_, _ = fmt.Fprintf(t, "%s\t%d\t%d\t%.2f\n", r.name, stats.Median(r.checkpoint).Milliseconds(), back.Milliseconds(), float64(back)/float64(again))
	}
	_, _ = fmt.Fprintf(t, "upstream, stop and start\t-\t%d\t%.2f\n", again.Milliseconds(), 1.0)
}

// bars says which bars are missed.
func bars(plain, upstream, controllers *side) (missed []error) {
	check := func(what string, got, want float64) {
		if got > want {
			missed = append(missed, fmt.Errorf("%s is %.2f times upstream's, and must be at most %.1f", what, got, want))
		}
	}
	check("start to ready", ratio(plain.ready, upstream.ready), readyBar)
	check("stop", ratio(plain.stop, upstream.stop), stopBar)
	check("start to ready with controllers and nodes", ratio(controllers.ready, upstream.ready), readyControllerBar)
	return missed
}

func ratio[T int | time.Duration](ours, theirs []T) float64 {
	return float64(stats.Median(ours)) / float64(stats.Median(theirs))
}
