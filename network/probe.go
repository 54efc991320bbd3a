package network

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flyball.dev/nft"
)

// Probe tries, in a network namespace of its own that is gone when it returns, each feature of the
// kernel that the node network and the service proxy need. An entry is nil if the feature works.
// Trying makes the kernel load its modules.
func Probe() map[string]error {
	found := make(chan map[string]error)
	go func() {
		// The thread is not unlocked: it ends with the goroutine, and the namespace with it.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			found <- map[string]error{"network namespaces": fmt.Errorf("creating one: %w", err)}
			return
		}
		found <- map[string]error{
			"network namespaces": nil,
			"bridge":             probeLink(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "probe0"}}),
			"veth":               probeLink(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "probe1"}, PeerName: "probe2"}),
			"nf_tables":          probeNAT(),
			"br_netfilter":       probeBridgeNetfilter(),
		}
	}()
	return <-found
}

func probeLink(link netlink.Link) error {
	if err := netlink.LinkAdd(link); err != nil {
		return fmt.Errorf("creating an interface: %w", err)
	}
	return nil
}

// probeNAT adds a table with address translation and connection tracking.
func probeNAT() error {
	tx := nft.Transaction{Table: nft.TableName{Family: nft.IPv4, Name: "probe"}}
	tx.Create(nft.Table{Chains: []nft.Chain{{
		Name: "postrouting", Base: nft.Base{Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySrcNAT},
		Rules: []nft.Rule{nft.R(nft.HasBits(nft.CTState, nft.StateNew), nft.Masquerade{})},
	}}})
	if err := (nft.Kernel{}).Apply(tx); err != nil {
		return fmt.Errorf("adding a table with address translation: %w", err)
	}
	return nil
}

func probeBridgeNetfilter() error {
	if _, err := os.Stat(bridgeCallsFilter); err == nil {
		return nil
	}
	if err := loadModule("br_netfilter"); err != nil {
		return fmt.Errorf("loading the module: %w", err)
	}
	return nil
}
