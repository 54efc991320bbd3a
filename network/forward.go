package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"k8s.io/klog/v2"

	"flyball.dev/nft"
)

// syncForward lets packets from and to Pods pass where another program drops what is forwarded.
// Without ranges it removes its rules. A chain that cannot be changed keeps no other back.
func syncForward(log klog.Logger, clusters []netip.Prefix) error {
	chains, err := observeForward(clusters)
	errs := []error{err}
	for _, c := range chains {
		actions := planForward(clusters, c)
		for _, a := range actions {
			log.V(2).Info("Changing a firewall's chain", "chain", c.String(),
				"rule", a.Rule.Comment, "remove", a.Remove, "reason", a.Reason)
		}
		errs = append(errs, actForward(c, actions))
	}
	return errors.Join(errs...)
}

// observeForward reads the chains of the forward hook that drop, or have rules of ours.
func observeForward(clusters []netip.Prefix) ([]forwardChain, error) {
	chains, err := nft.Kernel{}.Filters(nft.Forward)
	var found []forwardChain
	for _, c := range chains {
		chain := forwardChain{BaseChain: c.BaseChain}
		if c.Owned {
			// No rule of ours is there, and the firewall may accept packets of Pods itself.
			nft.Kernel{}.Follow(&c)
			chain.Drops = dropsAny(c, clusters)
		} else {
			chain.Drops = drops(c, netip.Prefix{})
		}
		for _, r := range c.Rules {
			if strings.HasPrefix(r.Comment, forwardMark) {
				chain.Ours = append(chain.Ours, r)
			}
		}
		// The proxy's own chains are of the same hook, and drop nothing that is not theirs.
		if chain.Drops || len(chain.Ours) > 0 {
			found = append(found, chain)
		}
	}
	return found, err
}

// actForward changes a chain. Each rule is a transaction, so that one which has gone keeps no other
// in its place. If the chain has gone, an event says so.
func actForward(c forwardChain, actions []forwardAction) error {
	for _, a := range actions {
		do := nft.InsertRule
		if a.Remove {
			do = nft.DeleteRule
		}
		tx := nft.Transaction{Table: c.Table}
		tx.Append(nft.Operation{Do: do, Chain: nft.Chain{Name: c.Name}, Rule: a.Rule})
		switch err := (nft.Kernel{}).Apply(tx); {
		case err == nil, errors.Is(err, fs.ErrNotExist):
		case errors.Is(err, fs.ErrPermission):
			return fmt.Errorf("letting the packets of Pods pass in %s: %w; the program that made the table owns it: "+
				"for firewalld, set NftablesTableOwner=no in /etc/firewalld/firewalld.conf and restart it, "+
				"or have it accept clusterCIDR itself", c, err)
		default:
			return fmt.Errorf("letting the packets of Pods pass in %s: %w", c, err)
		}
	}
	return nil
}
