// Package envtest makes Flyball take the place of the programs that controller-runtime's envtest
// starts: it makes the folder in which envtest finds them, reads what their environment asks for,
// and ends them with the process that started them. The programs themselves are upstream's; see
// controlplane/programs.
package envtest

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Variable is the environment variable that says what works behind the API server.
const Variable = "FLYBALL_ENVTEST"

// maxNodes is how many simulated nodes have been seen to work on two cores, with ten thousand Pods:
// in 4.1 GB, and 0.5 GB of etcd. docs/simulated-nodes.md has the figures.
const maxNodes = 1000

const allowed = `allowed are "controllers" and "controllers,nodes=N" with N from 1 to 1000; without it there are neither controllers nor nodes`

// Mode is what works behind the API server. The zero Mode is plain envtest: nothing.
type Mode struct {
	// Controllers are upstream's, ours, and the scheduler.
	Controllers bool
	// Nodes is how many simulated nodes there are.
	Nodes int
}

// FromEnvironment reads the Mode that the environment asks for.
func FromEnvironment() (Mode, error) { return Parse(os.Getenv(Variable)) }

// Begin is the start of a program of envtest with the flags args: it reads the Mode, and lets the
// process end with the one that started it. etcd does not depend on the Mode but starts first, so
// that a mistake shows before anything has started.
func Begin(args []string) (Mode, error) {
	mode, err := FromEnvironment()
	if err == nil {
		err = EndWithParent(args)
	}
	return mode, err
}

// Parse reads the words of a Mode, separated by commas. Whatever it does not know is an error that
// names it.
func Parse(text string) (Mode, error) {
	var mode Mode
	if strings.TrimSpace(text) == "" {
		return mode, nil
	}
	fail := func(format string, args ...any) error {
		return fmt.Errorf("reading %s=%q: %s; %s", Variable, text, fmt.Sprintf(format, args...), allowed)
	}
	for word := range strings.SplitSeq(text, ",") {
		switch name, value, found := strings.Cut(strings.TrimSpace(word), "="); {
		case name == "controllers" && mode.Controllers || name == "nodes" && mode.Nodes != 0:
			return Mode{}, fail("%q is there twice", name)
		case name == "controllers" && !found:
			mode.Controllers = true
		case name == "nodes" && found:
			n, err := strconv.Atoi(value)
			switch {
			case errors.Is(err, strconv.ErrSyntax):
				return Mode{}, fail("%q is not a number of nodes", value)
			case err != nil || n < 1 || n > maxNodes:
				return Mode{}, fail("%q nodes are not between 1 and %d", value, maxNodes)
			}
			mode.Nodes = n
		default:
			return Mode{}, fail("%q is unknown", strings.TrimSpace(word))
		}
	}
	if mode.Nodes > 0 && !mode.Controllers {
		return Mode{}, fail("nodes need controllers")
	}
	return mode, nil
}
