package programs

import (
	"os"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/pkg/v3/osutil"
	"go.etcd.io/etcd/server/v3/etcdmain"

	_ "flyball.dev/controlplane/version" // it reports the version that it is
)

// The only voter waits for a random part of the election timeout before it elects itself, a second by default. With short
// ones that is soon, and there is nobody whom heartbeats could disturb.
const (
	soloHeartbeat = "--heartbeat-interval=10"
	soloElection  = "--election-timeout=50"
)

// Etcd is the command etcd: args are what follows its name. It ends the process at SIGTERM, and if it cannot start.
func Etcd(args []string) error {
	osutil.RegisterInterruptHandler(func() {
		time.AfterFunc(stopPatience, func() { os.Exit(0) }) // it waits seconds for clients that keep a stream open
	})
	etcdmain.Main(slices.Concat([]string{"etcd"}, etcdDefaults(args), args))
	return nil
}

// etcdDefaults are flags that stand before those of the caller, so that the caller's count.
func etcdDefaults(args []string) []string {
	if len(args) == 0 || !strings.HasPrefix(args[0], "-") {
		return nil // a subcommand, or nothing that a test suite would run
	}
	for _, arg := range args {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch name {
		case "initial-cluster", "discovery", "discovery-srv", "config-file", "help", "h", "version":
			return nil // it may have other members, or does not run
		case "heartbeat-interval", "election-timeout":
			return nil // they only make sense together
		}
	}
	return []string{soloHeartbeat, soloElection}
}
