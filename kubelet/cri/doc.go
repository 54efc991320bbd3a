// Package cri has what the node agent knows about sandboxes and containers, as plain structs, and
// the labels and annotations that tie them to their Pods. It imports no client and not CRI itself,
// so that plans can use it; package remote fills the structs in.
package cri
