package suite

import "regexp"

// notKind matches the names of the tests that upstream's kind job leaves out. Its filter is on labels, which the suite
// writes into the names: [Feature:…] asks for something that a cluster has only on demand, and [Feature:OffByDefault] is
// what a feature gate brings that is off by default; a test with a gate that is on, [FeatureGate:…] alone, belongs to the
// job. Serial tests have a job of their own.
//
// Volumes and dynamic resource allocation are left out until nodes have them.
var notKind = regexp.MustCompile(`\[(Feature:|Slow\]|Disruptive\]|Flaky\]|Serial\]|sig-storage\]|DRA\])`)

// Kind tells whether a test belongs to what upstream's kind job runs.
func (t Test) Kind() bool { return !notKind.MatchString(t.Name) }
