// Package remote is the client of the Container Runtime Interface: it connects to a runtime
// (containerd, CRI-O) over its unix socket, observes Pods, and reports which Pods changed.
//
// Observe reads the sandboxes and containers of one Pod into the structs of package cri. It caches
// facts that cannot change (the address of a ready sandbox, the start of a running container, the
// end of one that has exited), so that observing a Pod costs two small calls.
//
// Changes come from the runtime's event stream (Watch). A slow relist is the safety net behind it,
// and follows each reconnect.
//
// Package pod plans and acts. It calls the runtime through Client.Runtime and Client.Images.
package remote
