package envtest

import "os"

// TokenVariable holds the token for checkpoints of a kube-apiserver. Package flyballtest sets it.
const TokenVariable = "FLYBALL_ENVTEST_TOKEN" //nolint:gosec // the name of a variable

// AwaitParent returns true when the process that started this one writes a line to standard input,
// and false if it ends instead.
func AwaitParent() bool {
	var line [1]byte // no more than the line: EndWithParent reads on
	for line[0] != '\n' {
		if _, err := os.Stdin.Read(line[:]); err != nil {
			return false
		}
	}
	return true
}
