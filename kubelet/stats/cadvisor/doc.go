// Package cadvisor serves what the node, its Pods and their containers use, under the names of
// cAdvisor that dashboards read from /metrics/cadvisor. docs/metrics.md lists them.
//
// It reads the figures from cgroups and /proc during the scrape; nothing runs between two scrapes.
// It asks the runtime only which Pods and containers own the cgroups. The runtime's own metrics
// (ListPodSandboxMetrics) are not used: CRI carries them as integers, so that CPU time comes in
// whole seconds, and containerd 2.4 measures at most ten Pods a second.
//
// cAdvisor's library reads and names the figures, so that names, labels and units are the original.
// Figures that the library reports as 0 because it has not measured them are left out.
package cadvisor
