// Package remote is the client of the Container Runtime Interface: it connects to a runtime
// (containerd, CRI-O) over its unix socket, reads what the runtime knows about a Pod into the
// structs of package cri, and says which Pods changed.
//
// Observe reads the sandboxes and containers of one Pod. It caches what cannot change any more (the
// address of a ready sandbox, the start of a running container, how one ended), so that observing a
// Pod costs two small calls.
//
// Changes come from the runtime's event stream. A slow relist stands behind it as a safety net, and
// follows each reconnect.
//
// The package decides nothing: package pod plans, and calls the runtime's services through
// Client.Runtime and Client.Images to act.
package remote
