// Package proxy is Flyball's service proxy: it makes the addresses of Services and the host ports
// of this node's Pods work, with one nftables table (`flyball-proxy`). It is the only writer of
// that table, of the UDP conntrack entries that it finds stale, and of route_localnet on the links
// that lead to Pods with host ports. Routes, the bridge and the masquerading of Pods that talk to
// the outside belong to package network.
//
// # Shape
//
// An event goes from watch.go, which queues the Service or Pod that it concerns, to the loop in
// controller.go. The loop reads the caches into plain values (observe.go) and records what each
// wants (plan_service.go) in a State (plan.go), which compares it with what was last written and
// returns the elements to add and to delete. plan_class.go and plan_table.go say, as values of
// package nft, which rules read those elements. act.go makes transactions of the Change: new
// classes in one, all elements in the next.
//
// # The rule set
//
// Almost everything is data. A Service has no chain and no rule of its own:
//
//	frontends     address . protocol . port            : goto class
//	endpoints     address . protocol . port . index    : address . port
//
// Cluster IPs, external IPs and load balancer IPs are frontends under their own address, NodePorts
// under 0.0.0.0. The class says how traffic to a frontend is treated ("three endpoints, always
// masqueraded"). All frontends of a class share one chain, which picks an index at random and finds
// the endpoint under it. So a change to a Service is a few map elements, whatever the number of
// Services. Only with session affinity does a frontend have a class, and so a chain, to itself.
//
// The result of one lookup is never the key of the next, though the kernel could do that and rules
// would be fewer: `nft list ruleset` of nftables 1.0.6, which is Debian 12's, aborts on it.
//
// NAT chains see the first packet of a connection only, and conntrack keeps what was decided.
// Connections in flight therefore survive every change, including the replacement of the whole
// table when Flyball starts.
//
// # Choices
//
//   - NodePorts answer on every local address but those of 127.0.0.0/8, as kube-proxy's nftables
//     mode does with --nodeport-addresses=0.0.0.0/0.
//   - Host ports answer on every local address, loopback included, unless hostIP names one.
//   - Where two Services claim the same address, protocol and port (external IPs, or a stale cache
//     while an address changes hands), the one whose namespace/name sorts first has it, as long as
//     it claims it.
//   - Packets to be masqueraded carry mark 0x4000 from the NAT chain to postrouting, where it is
//     cleared: the bit that kube-proxy has always used.
//   - Session affinity is kept by client address and frontend: a client that uses both the cluster
//     IP and the NodePort of a Service may meet two endpoints. It survives a restart of Flyball,
//     and ends with the endpoint: a client that went to another stays there when the first is ready
//     again.
//   - With externalTrafficPolicy Local, Pods of this node and the node itself may use any endpoint
//     at an external address, as if they had gone out to a load balancer. Other nodes are outside,
//     also for their Pods: these come with the address of their node, and upstream's tests want
//     their packets dropped.
//   - IPv4 only, so far. What is specific to it is in family.go.
//
// Kernel 5.9 or later is needed (reject in prerouting).
package proxy
