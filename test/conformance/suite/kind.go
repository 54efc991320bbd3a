package suite

import (
	"regexp"
	"slices"
	"strings"
)

// Names of the suites that have a part of RESULTS.md each, besides conformance.
const (
	Kind            = "kind"
	StorageExternal = "storage-external"
	StorageMock     = "storage-mock"
)

// notKind matches the names of the tests that upstream's kind job leaves out. Its filter is on labels, which the suite
// writes into the names: [Feature:…] asks for something that a cluster has only on demand, and [Feature:OffByDefault] is
// what a feature gate brings that is off by default; a test with a gate that is on, [FeatureGate:…] alone, belongs to the
// job. Serial tests have a job of their own.
//
// Dynamic resource allocation is left out until nodes have it.
var notKind = regexp.MustCompile(`\[(Feature:|Slow\]|Disruptive\]|Flaky\]|Serial\]|DRA\])`)

// Kind tells whether a test belongs to what upstream's kind job runs.
func (t Test) Kind() bool { return !notKind.MatchString(t.Name) }

// External tells whether a test is one of a storage driver that is installed in the cluster. The suite has those tests only
// for a driver that it is given, by Programs.Driver.
func (t Test) External() bool { return strings.HasPrefix(t.Name, "External Storage [Driver: ") }

// feature matches a feature that a test asks for.
var feature = regexp.MustCompile(`\[Feature:(\w+)\]`)

// Mock tells whether a test is one of the mock CSI driver's, slow and serial ones among them. Left out are those of features
// that are off by default or that the host decides on.
func (t Test) Mock() bool {
	asked := feature.FindAllStringSubmatch(t.Name, -1)
	unmet := slices.ContainsFunc(asked, func(f []string) bool { return f[1] != "VolumeSnapshotDataSource" })
	return strings.Contains(t.Name, " CSI Mock ") && !unmet && !strings.Contains(t.Name, "[Flaky]")
}
