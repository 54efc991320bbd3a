package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// figures are everything that is measured of one side.
type figures struct {
	side                        string
	readyz, nodeReady, firstPod time.Duration // since the start
	podStart, podEnd            []time.Duration
	burst                       time.Duration
	idle                        []usage
	claims                      *claims  // nil without a default StorageClass
	disk                        *written // nil where no block device is under the data directory
}

// row is one line of the report: its value in each side's figures, in a unit.
type row struct {
	name, unit string
	value      func(*figures) float64
}

func rows(onDisk bool) []row {
	ms := func(d time.Duration) float64 { return float64(d.Milliseconds()) }
	list := []row{
		{"start to /readyz", "ms", func(f *figures) float64 { return ms(f.readyz) }},
		{"start to node Ready", "ms", func(f *figures) float64 { return ms(f.nodeReady) }},
		{"start to first Pod Running", "ms", func(f *figures) float64 { return ms(f.firstPod) }},
		{"create to Running, p50", "ms", func(f *figures) float64 { return ms(quantile(f.podStart, .5)) }},
		{"create to Running, p99", "ms", func(f *figures) float64 { return ms(quantile(f.podStart, .99)) }},
		{"delete to gone, p50", "ms", func(f *figures) float64 { return ms(quantile(f.podEnd, .5)) }},
		{"burst until the last is Running", "ms", func(f *figures) float64 { return ms(f.burst) }},
		{"resident memory, all processes", "MB", func(f *figures) float64 { return megabytes(total(f.idle).rss) }},
		{"idle CPU, all processes", "% of a core", func(f *figures) float64 { return 100 * total(f.idle).cpu }},
	}
	if onDisk {
		list = append(list,
			row{"idle disk writes with 3 Pods", "MB an hour", func(f *figures) float64 { return f.disk.bytes / 1e6 * f.disk.per(time.Hour) }},
			row{"the same", "writes a minute", func(f *figures) float64 { return f.disk.writes * f.disk.per(time.Minute) }})
	}
	return list
}

// report prints a line per figure, with the ratio of the first side to the second, and then memory and CPU per process.
func report(w io.Writer, results []*figures) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer func() { _ = t.Flush() }()
	_, _ = fmt.Fprint(t, "figure\tunit")
	for _, f := range results {
		_, _ = fmt.Fprintf(t, "\t%s", f.side)
	}
	_, _ = fmt.Fprintln(t, "\tratio")
	onDisk := !slices.ContainsFunc(results, func(f *figures) bool { return f.disk == nil })
	for _, r := range rows(onDisk) {
		_, _ = fmt.Fprintf(t, "%s\t%s", r.name, r.unit)
		for _, f := range results {
			_, _ = fmt.Fprintf(t, "\t%.1f", r.value(f))
		}
		if len(results) == 2 {
			_, _ = fmt.Fprintf(t, "\t%.2f", r.value(results[0])/r.value(results[1]))
		}
		_, _ = fmt.Fprintln(t)
	}
	for _, f := range results {
		reportClaims(t, f)
	}
	for _, f := range results {
		for _, u := range f.idle {
			_, _ = fmt.Fprintf(t, "%s: %s\tMB, %% of a core\t%.1f\t%.1f\n", f.side, u.name, megabytes(u.rss), 100*u.cpu)
		}
	}
}

// reportClaims prints what only a side with a default StorageClass has: its ratio is to its own Pods without claims.
func reportClaims(w io.Writer, f *figures) {
	if f.claims == nil {
		return
	}
	for _, q := range []struct {
		name  string
		value float64
	}{{"p50", .5}, {"p99", .99}} {
		_, _ = fmt.Fprintf(w, "%s: claim to bound and mounted, %s\tms\t%d\n", f.side, q.name, quantile(f.claims.bound, q.value).Milliseconds())
	}
	_, _ = fmt.Fprintf(w, "%s: burst with a claim each\tms\t%d\n", f.side, f.claims.burst.Milliseconds())
	_, _ = fmt.Fprintf(w, "%s: the same, to the burst without\tratio\t%.2f\n", f.side, f.claims.burst.Seconds()/f.burst.Seconds())
}

func total(list []usage) (sum usage) {
	for _, u := range list {
		sum.rss += u.rss
		sum.cpu += u.cpu
	}
	return sum
}

func megabytes(bytes int) float64 { return float64(bytes) / (1 << 20) }

func quantile(list []time.Duration, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[int(q*float64(len(sorted)-1))]
}
