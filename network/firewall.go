package network

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"

	"flyball.dev/nft"
)

// legacyTables names the tables of iptables-legacy, which nftables neither shows nor changes.
const legacyTables = "/proc/net/ip_tables_names"

// Firewall is what the packet filter of this host does with packets of Pods.
type Firewall struct {
	// Forward are the chains that drop what is forwarded. The node adds rules to those that are not
	// owned.
	Forward []nft.BaseChain
	// Input are the chains that drop what Pods send to the host itself, where the cluster DNS and
	// the API server listen. The node leaves them as they are.
	Input []nft.BaseChain
	// Legacy is set if iptables-legacy has a filter, in which nothing can be read or changed from
	// here.
	Legacy bool
}

// ReadFirewall reads what the packet filter of this host does with packets of Pods in the cluster's
// ranges.
func ReadFirewall(clusters ...netip.Prefix) (Firewall, error) {
	var f Firewall
	forward, err := observeForward(clusters)
	for _, c := range forward {
		if c.Drops {
			f.Forward = append(f.Forward, c.BaseChain)
		}
	}
	input, inputErr := nft.Kernel{}.Filters(nft.Input)
	for _, c := range input {
		nft.Kernel{}.Follow(&c)
		if dropsAny(c, clusters) {
			f.Input = append(f.Input, c.BaseChain)
		}
	}
	names, _ := os.ReadFile(legacyTables)
	f.Legacy = slices.Contains(strings.Fields(string(names)), "filter")
	return f, errors.Join(err, inputErr)
}
