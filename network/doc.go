// Package network gives a node the network that its Pods need: a bridge, its CNI configuration,
// routes to the Pods of other nodes, masquerading of what leaves the cluster, and the cluster DNS
// address.
//
// Setup runs before anything of the node sends a packet. It puts unreachable routes for the ranges
// of Pods and Services behind all others, so that no packet to a Pod or Service that does not exist
// leaves the host. Run then follows the Nodes: once its own has a podCIDR, it makes the bridge and
// writes the CNI configuration. Cleanup removes all of it.
//
// The package leaves to others: Services and host ports (package proxy), the addresses of single
// Pods (the CNI plugins bridge and host-local), the server on the DNS address (package dns). It is
// the only writer of the nftables table flyball-network, the bridge flyball0, the CNI
// configuration, all routes with protocol 251, and all nftables rules whose comment begins with
// "flyball: ".
//
//	controller.go       what runs: Setup, Run with its sync, Cleanup
//	observe.go          reads links, addresses, routes and Nodes
//	plan.go             which state is wanted, and the steps from the present to it
//	plan_masquerade.go  the nftables table
//	act.go              changes links, addresses and routes over netlink
//	firewall.go         what the host's firewall does with packets of Pods; plan_firewall.go decides it
//	forward.go          rules in the chains of a firewall that drops what is forwarded; plan_forward.go
//	                    plans them
//	conflist.go         the CNI configuration
//	plugins.go          links to our CNI plugins, for a runtime that is not ours
//	host.go             kernel settings
//	probe.go            tries what the kernel must have
package network
