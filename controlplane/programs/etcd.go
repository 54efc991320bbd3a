package programs

import (
	"os"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/pkg/v3/osutil"
	"go.etcd.io/etcd/server/v3/etcdmain"

	_ "flyball.dev/controlplane/version" // it reports its version
)

// The only voter waits for a random fraction of the election timeout, by default one second, before
// it elects itself. Short intervals shorten that, and without followers heartbeats cost nothing.
const (
	soloHeartbeat = "--heartbeat-interval=10"
	soloElection  = "--election-timeout=50"
)

// Etcd is the command etcd: args are what follows its name. It ends the process at SIGTERM, and if
// it cannot start.
func Etcd(args []string) error {
	osutil.RegisterInterruptHandler(func() {
		time.AfterFunc(stopGrace, func() { os.Exit(0) }) // etcd itself waits seconds for clients with open streams
	})
	etcdmain.Main(slices.Concat([]string{"etcd"}, etcdDefaults(args), args))
	return nil
}

// etcdDefaults returns flags to put before the caller's, so that the caller's win.
func etcdDefaults(args []string) []string {
	if len(args) == 0 || !strings.HasPrefix(args[0], "-") {
		return nil // a subcommand, which test suites do not run
	}
	for _, arg := range args {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch name {
		case "initial-cluster", "discovery", "discovery-srv", "config-file", "help", "h", "version":
			return nil // it may have other members, or does not serve
		case "heartbeat-interval", "election-timeout":
			return nil // the two flags depend on each other
		}
	}
	return []string{soloHeartbeat, soloElection}
}
