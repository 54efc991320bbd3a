package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"flyball.dev/test/conformance/cluster"
	"flyball.dev/test/conformance/images"
	"flyball.dev/test/conformance/results"
	"flyball.dev/test/conformance/suite"
)

// Files beside RESULTS.md: what upstream's own stack fails here, and, of a suite, why tests fail and which do not pass.
func (o options) upstream() string                 { return o.beside("reference.json") }
func (o options) reasons() string                  { return o.beside(o.suite + ".yaml") }
func (o options) notPassing(p results.Part) string { return o.beside(p.Suite + ".txt") }

// complete tells whether all tests of the suite run.
func (o options) complete() bool { return o.focus+o.skip == "" }

// conclude prints and records the results. It returns an error if a test fails that is recorded as passing, or one of a suite
// with reasons for which nobody has given one.
func conclude(ctx context.Context, o options, c cluster.Cluster, version string, outcomes []suite.Outcome) error {
	count := map[suite.State]int{}
	for _, outcome := range outcomes {
		count[outcome.State]++
	}
	fmt.Printf("%d of %d passed, %d failed, %d skipped; %s/junit.xml, logs in %s\n",
		count[suite.Passed], len(outcomes), count[suite.Failed], count[suite.Skipped], o.out, o.logs())
	if o.reference {
		return results.WriteReference(o.upstream(), version, outcomes, time.Now())
	}
	if o.kubeconfig != "" {
		return nil
	}
	reasons, err := results.ReadReasons(o.reasons())
	if err != nil {
		return err
	}
	if err := errors.Join(compare(o, outcomes), explain(o, reasons, outcomes)); err != nil {
		return err
	}
	part, ok := results.PartOf(o.suite)
	switch {
	case !o.complete():
		return nil
	case o.suite == "conformance":
		reference, err := results.ReadReference(o.upstream())
		if err != nil {
			return err
		}
		record := results.Record{
			Date: time.Now(), Version: version, Product: c.Version(ctx), Nodes: c.Nodes(),
			Outcomes: outcomes, Reference: reference.Failing, Unbuilt: images.Missing(),
		}
		err = record.Write(o.record)
		if err != nil {
			return err
		}
	case ok:
		for _, entry := range reasons.Unneeded(outcomes) {
			fmt.Fprintf(os.Stderr, "  no test needs the reason that %s gives for %s\n", o.reasons(), entry)
		}
		record := results.PartRecord{Part: part, Date: time.Now(), Version: version, Product: c.Version(ctx), Outcomes: outcomes, Reasons: reasons}
		if err := record.Write(o.record, o.notPassing(part)); err != nil {
			return err
		}
	default:
		return nil
	}
	return keepLong(o.long(), outcomes)
}

// compare returns an error that names the tests that are recorded as passing and did not.
func compare(o options, outcomes []suite.Outcome) error {
	conformance, err := results.Read(o.record)
	if err != nil {
		return err
	}
	lost := conformance.Lost(outcomes)
	for _, part := range results.Parts() {
		known, err := part.Read(o.notPassing(part))
		if err != nil {
			return err
		}
		lost = append(lost, known.Lost(outcomes)...)
	}
	slices.Sort(lost)
	if lost = slices.Compact(lost); len(lost) > 0 {
		return fmt.Errorf("comparing with %s: %d tests passed then and do not now:\n  %s", o.record, len(lost), strings.Join(lost, "\n  "))
	}
	return nil
}

// explain returns an error that names the tests that failed without a reason, in a suite that wants one.
func explain(o options, reasons results.Reasons, outcomes []suite.Outcome) error {
	missing := reasons.Missing(outcomes)
	if _, ok := results.PartOf(o.suite); !ok || len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("explaining what failed: %s has no reason for %d tests; write one, and the same command records the results:\n  %s",
		o.reasons(), len(missing), strings.Join(missing, "\n  "))
}
