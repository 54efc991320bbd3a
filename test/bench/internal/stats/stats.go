// Package stats is the arithmetic that the benchmarks share.
package stats

import (
	"slices"
	"time"
)

// Median is the middle one, or the mean of the two in the middle; 0 of nothing.
func Median[T int | time.Duration](list []T) T {
	sorted := slices.Sorted(slices.Values(list))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
