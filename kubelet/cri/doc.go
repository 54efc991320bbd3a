// Package cri has the sandboxes and containers of the runtime as plain structs, the labels and
// annotations that identify their Pods, finds containers in Pods, and has the rules about limits
// and read-only mounts that plans and rendering share. It imports neither a client nor CRI, so that
// plans can use it; package remote fills the structs.
package cri
