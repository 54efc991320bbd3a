//go:build linux

package checks

import (
	"fmt"
	"strings"

	"flyball.dev/nft"
)

// firewall returns what the firewall does with packets of Pods. A firewall that lets them pass has
// no findings.
func firewall(h Host, w Want) []Finding {
	var findings []Finding
	if h.FirewallError != nil {
		findings = append(findings, Finding{
			Name: "firewall", Detail: "cannot be read: " + h.FirewallError.Error(),
			Remedy: "see to it that it forwards packets from and to Pods",
		})
	}
	cluster := w.Ranges["clusterCIDR"].String()
	var opened []string
	for _, c := range h.Firewall.Forward {
		if !c.Owned {
			opened = append(opened, c.String())
			continue
		}
		findings = append(findings, Finding{
			Name: "firewall", Detail: c.String() + " drops what is forwarded, and flyball cannot add rules: the program that made the table owns it",
			Remedy: "for firewalld, set NftablesTableOwner=no in /etc/firewalld/firewalld.conf and restart it, or have it accept packets from and to " + cluster + " itself",
		})
	}
	if len(opened) > 0 {
		findings = append(findings, Finding{
			Name: "firewall", OK: true,
			Detail: strings.Join(opened, ", ") + " drops what is forwarded; flyball adds rules that let packets from and to Pods pass",
		})
	}
	for _, c := range h.Firewall.Input {
		findings = append(findings, Finding{
			Name: "firewall input", Remedy: acceptInput(c, cluster),
			Detail: fmt.Sprintf("%s drops what Pods send to this host, and no rule was found that accepts packets from %s: Pods may not reach the cluster DNS and the API server", c, cluster),
		})
	}
	if h.Firewall.Legacy {
		findings = append(findings, Finding{
			Name: "iptables-legacy", Detail: "its filter is in use, and flyball can neither read nor change it",
			Remedy: "if its chain FORWARD drops packets, accept there those from and to clusterCIDR, and in INPUT those from it, or move to iptables-nft",
		})
	}
	return findings
}

// acceptInput is how the user accepts packets of Pods in the chain.
func acceptInput(c nft.BaseChain, cluster string) string {
	if c.Table.Name == "firewalld" {
		return fmt.Sprintf("run `firewall-cmd --permanent --zone=trusted --add-source=%s && firewall-cmd --reload`", cluster)
	}
	return fmt.Sprintf("with ufw run `ufw allow from %[1]s`, otherwise `nft insert rule %[2]s %[3]s ip saddr %[1]s accept`, and keep that rule where the firewall keeps its own",
		cluster, c.Table, c.Name)
}
