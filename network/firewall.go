package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
)

// legacyTables names the tables of iptables-legacy, which nftables neither shows nor changes.
const legacyTables = "/proc/net/ip_tables_names"

// Firewall is what the packet filter of this host does with packets of Pods.
type Firewall struct {
	// Forward are the chains that drop what is forwarded. The node adds rules to those that are not
	// owned.
	Forward []FirewallChain
	// Input are the chains that drop what Pods send to the host itself, where the cluster DNS and
	// the API server listen. The node leaves them as they are.
	Input []FirewallChain
	// Legacy is set if iptables-legacy has a filter, in which nothing can be read or changed from
	// here.
	Legacy bool
}

// ReadFirewall reads what the packet filter of this host does with packets of Pods in cluster.
func ReadFirewall(cluster netip.Prefix) (Firewall, error) {
	var f Firewall
	forward, err := observeForward(cluster)
	for _, c := range forward {
		if c.Drops {
			f.Forward = append(f.Forward, c.FirewallChain)
		}
	}
	input, inputErr := observeHook(*nftables.ChainHookInput)
	for _, c := range input {
		if drops(c.policy, c.rules, cluster, c.jump) {
			f.Input = append(f.Input, c.FirewallChain)
		}
	}
	names, _ := os.ReadFile(legacyTables)
	f.Legacy = slices.Contains(strings.Fields(string(names)), "filter")
	return f, errors.Join(err, inputErr)
}

// hooked is a base chain as it was read.
type hooked struct {
	FirewallChain
	policy *nftables.ChainPolicy
	rules  []*nftables.Rule
	jump   func(chain string) []*nftables.Rule // reads the rules of another chain of the table
}

// observeHook reads the filters of a hook, as far as that is possible. The rules of a chain that
// has gone meanwhile are none.
func observeHook(hook nftables.ChainHook) ([]hooked, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	var found []hooked
	var errs []error
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyINet} {
		tables, err := conn.ListTablesOfFamily(family)
		if err != nil {
			errs = append(errs, fmt.Errorf("listing the tables of nftables: %w", err))
			continue
		}
		chains, err := conn.ListChainsOfTableFamily(family)
		if err != nil {
			errs = append(errs, fmt.Errorf("listing the chains of nftables: %w", err))
			continue
		}
		for _, c := range chains {
			if c.Type != nftables.ChainTypeFilter || c.Hooknum == nil || *c.Hooknum != hook {
				continue
			}
			rules, err := conn.GetRules(c.Table, c)
			if err != nil {
				errs = append(errs, fmt.Errorf("listing the rules of chain %s of table %s: %w", c.Name, c.Table.Name, err))
				continue
			}
			found = append(found, hooked{
				FirewallChain: FirewallChain{
					Inet: family == nftables.TableFamilyINet, Table: c.Table.Name, Name: c.Name,
					Owned: slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == c.Table.Name && owned(t) }),
				},
				policy: c.Policy, rules: rules,
				jump: func(chain string) []*nftables.Rule {
					rules, _ := conn.GetRules(c.Table, &nftables.Chain{Name: chain, Table: c.Table})
					return rules
				},
			})
		}
	}
	return found, errors.Join(errs...)
}

// tableOwner is the flag of a table that only the socket that made it may change
// (NFT_TABLE_F_OWNER).
const tableOwner = 1 << 1

// owned reads a table's flags, which the kernel sends as big-endian and the library takes for the
// machine's own byte order.
func owned(t *nftables.Table) bool {
	return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, t.Flags))&tableOwner != 0
}
