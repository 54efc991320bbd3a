// Package stats measures what the node, its pods and their containers use, in
// the terms of the kubelet's Summary API. Figures of pods come from the runtime
// (CRI's pod sandbox statistics), those of the node from /proc and statfs. It
// decides nothing and writes nothing; serving it is the server's part.
package stats
