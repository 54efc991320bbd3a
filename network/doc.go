// Package network gives a node the network that its Pods need: a bridge, its CNI configuration, routes to the Pods of
// other nodes, masquerading of what leaves the cluster, and the cluster DNS address.
//
// Setup runs first and before anything of the node sends a packet: it puts unreachable routes for the cluster and the
// Service CIDR behind all others, so that no packet to a Pod or Service that does not exist leaves the machine. Run then
// follows the Nodes: once its own has a podCIDR, it makes the bridge and writes the CNI configuration. Cleanup removes
// all of it.
//
// The room leaves to others: Services and host ports (the proxy), the addresses of single Pods (the CNI plugins bridge
// and host-local), what answers on the DNS address (package dns). It is the one writer of the nftables table
// flyball-network, the bridge flyball0, the CNI configuration, all routes with protocol 251, and all nftables rules whose
// comment begins with "flyball: ".
//
//	plan.go       which state is wanted, and the steps from the present to it; pure
//	kernel.go     observing and changing links, addresses and routes over netlink
//	masquerade.go the nftables table
//	firewall.go   what the host's firewall does with packets of Pods; decided in plan_firewall.go
//	forward.go    rules in the chains of a firewall that drops what is forwarded; planned in plan_forward.go
//	conflist.go   the CNI configuration
//	plugins.go    links to our CNI plugins, for a runtime that is not ours
//	host.go       kernel settings
package network
