// Package stats measures what the node, its Pods and their containers use, as the kubelet's Summary
// API defines it. The figures of Pods come from the runtime (CRI's PodSandboxStats), those of the
// node from /proc and statfs. It decides nothing and writes nothing; package server serves the
// Summary.
package stats
