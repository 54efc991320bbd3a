// Package cri speaks the Container Runtime Interface: it connects to a runtime
// (containerd, CRI-O) over its unix socket, reads what the runtime knows about a
// Pod into plain structs, and tells whoever subscribes which Pods changed.
//
// Observe answers with the sandboxes and containers of one Pod only. What cannot
// change any more (the address of a sandbox that is ready, the start of a
// container that runs, how one ended) is remembered, so that a look at a Pod
// costs two small calls.
//
// Changes come from the runtime's event stream. A slow relist stands behind it
// as a safety net, and follows each reconnect.
//
// The package decides nothing: package pod plans, and calls the runtime's
// services through Client.Runtime and Client.Images to act.
package cri
