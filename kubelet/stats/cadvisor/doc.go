// Package cadvisor serves what the node, its Pods and their containers use under cAdvisor's
// names, which the dashboards of the field read from /metrics/cadvisor. docs/metrics.md lists
// them.
//
// The figures come from cgroups and from /proc at the moment of the scrape; nothing runs between
// two scrapes. The runtime is asked only which Pods and containers the cgroups belong to. Its own
// metrics (ListPodSandboxMetrics) are not used: CRI carries them as integers, so that CPU time
// comes in whole seconds, and containerd 2.4 measures no more than ten Pods a second.
//
// Reading and naming are cAdvisor's library, so that names, labels and units are the real ones.
// Figures that nobody measured, which the library would report as 0, are left out.
package cadvisor
