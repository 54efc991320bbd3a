// Package version makes every bundled Kubernetes component report its version.
//
// Upstream's build sets these variables through the linker. A program that imports Kubernetes as a
// library gets placeholders instead ("v0.0.0-master+$Format:%H$"), which Helm charts, kubectl's
// skew warnings and the conformance suite believe. Importing this package sets them however the
// program was built: `go install`, `go test` or make.
package version

import (
	"strings"
	_ "unsafe" // for go:linkname

	_ "k8s.io/client-go/pkg/version" // owner of clientVersion
	componentversion "k8s.io/component-base/version"
)

// Kubernetes is the version that kube-apiserver, kubectl and the node report. The build metadata
// after the plus sign names the distribution, as others do; comparisons ignore it (semver 2.0, item
// 10).
const Kubernetes = "v1.37.2+flyball"

//go:linkname gitVersion k8s.io/component-base/version.gitVersion
var gitVersion string

//go:linkname gitMajor k8s.io/component-base/version.gitMajor
var gitMajor string

//go:linkname gitMinor k8s.io/component-base/version.gitMinor
var gitMinor string

//go:linkname gitCommit k8s.io/component-base/version.gitCommit
var gitCommit string

//go:linkname clientVersion k8s.io/client-go/pkg/version.gitVersion
var clientVersion string

//go:linkname clientCommit k8s.io/client-go/pkg/version.gitCommit
var clientCommit string

func init() {
	gitVersion, clientVersion = Kubernetes, Kubernetes
	gitMajor, gitMinor = "1", "37"
	for _, commit := range []*string{&gitCommit, &clientCommit} {
		if strings.HasPrefix(*commit, "$") { // the placeholder; make sets the commit through the linker
			*commit = ""
		}
	}
	// Get() answers from a copy that was taken when its package was initialised, before this
	// function ran.
	if err := componentversion.SetDynamicVersion(Kubernetes); err != nil {
		panic("setting the reported Kubernetes version: " + err.Error())
	}
}
