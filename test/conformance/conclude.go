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

// Files beside RESULTS.md: what upstream's own stack fails here, why tests of the kind job fail, and which do not pass.
func (o options) upstream() string { return o.beside("reference.json") }
func (o options) reasons() string  { return o.beside("kind.yaml") }
func (o options) kind() string     { return o.beside("kind.txt") }

// complete tells whether all tests of a suite run, and kindJob whether they are those of upstream's kind job.
func (o options) complete(suite string) bool { return o.suite == suite && o.focus+o.skip == "" }
func (o options) kindJob() bool              { return o.complete("kind") }

// conclude prints and records the results. It returns an error if a test fails that is recorded as passing, or one of the
// kind job for which nobody has given a reason.
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
	switch {
	case o.complete("conformance"):
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
	case o.kindJob():
		for _, entry := range reasons.Unneeded(outcomes) {
			fmt.Fprintf(os.Stderr, "  no test failed for the reason that %s gives for %s\n", o.reasons(), entry)
		}
		record := results.KindRecord{Date: time.Now(), Version: version, Product: c.Version(ctx), Outcomes: outcomes, Reasons: reasons}
		if err := record.Write(o.record, o.kind()); err != nil {
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
	kind, err := results.ReadKind(o.kind())
	if err != nil {
		return err
	}
	lost := append(conformance.Lost(outcomes), kind.Lost(outcomes)...)
	slices.Sort(lost)
	if lost = slices.Compact(lost); len(lost) > 0 {
		return fmt.Errorf("comparing with %s: %d tests passed then and do not now:\n  %s", o.record, len(lost), strings.Join(lost, "\n  "))
	}
	return nil
}

// explain returns an error that names the tests of the kind job that failed without a reason.
func explain(o options, reasons results.Reasons, outcomes []suite.Outcome) error {
	missing := reasons.Missing(outcomes)
	if o.suite != "kind" || len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("explaining what failed: %s has no reason for %d tests; write one, and the same command records the results:\n  %s",
		o.reasons(), len(missing), strings.Join(missing, "\n  "))
}
