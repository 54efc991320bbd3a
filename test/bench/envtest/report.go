package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
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
			median(s.ready).Milliseconds(), ratio(s.ready, upstream.ready),
			median(s.stop).Milliseconds(), ratio(s.stop, upstream.stop),
			median(s.stopWatched).Milliseconds(), ratio(s.stopWatched, upstream.stopWatched),
			median(s.peak)>>20, ratio(s.peak, upstream.peak))
	}
}

// reportRestores prints how long it takes to be in a known state again.
func reportRestores(w io.Writer, clusters []*restored, upstream *side) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer func() { _ = t.Flush() }()
	_, _ = fmt.Fprintf(t, "\nbetween tests, median of %d\tcheckpoint ms\trestore ms\tratio\n", len(clusters[0].restore))
	again := median(upstream.stop) + median(upstream.ready)
	for _, r := range clusters {
		back := median(r.restore)
		_, _ = fmt.Fprintf(t, "%s\t%d\t%d\t%.2f\n", r.name, median(r.checkpoint).Milliseconds(), back.Milliseconds(), float64(back)/float64(again))
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
	return float64(median(ours)) / float64(median(theirs))
}

func median[T int | time.Duration](list []T) T {
	sorted := slices.Sorted(slices.Values(list))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
