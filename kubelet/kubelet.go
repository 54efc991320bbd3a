package kubelet

import (
	"context"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"flyball.dev/kubelet/cri/remote"
	"flyball.dev/kubelet/images"
	"flyball.dev/kubelet/node"
	"flyball.dev/kubelet/pod"
	"flyball.dev/kubelet/probes"
)

// Host is what an agent runs Pods on: this host (run_linux.go), or what package simulated has in
// its place. Node, Probes, Images and Pods have the fields that NewAgent does not set.
type Host struct {
	// Client has the identity of the node and no rate limit. Recorder publishes the node's Events.
	Client   kubernetes.Interface
	Recorder record.EventRecorder
	// CRI is the container runtime.
	CRI *remote.Client

	Node   node.Config
	Probes probes.Config
	Images images.Config
	Pods   pod.Config
}

// ClientConfig is cfg for an agent's client, which has no rate limit: the number of changes on the
// node bounds what it writes, and the API server's priority and fairness shares its time.
func ClientConfig(cfg *rest.Config, userAgent string) *rest.Config {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS, cfg.UserAgent = -1, userAgent
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	return cfg
}

// Agent is what every node has.
type Agent struct {
	Node   *node.Controller
	Probes *probes.Manager
	Pods   *pod.Manager
}

// NewAgent wires an Agent, which does nothing before Run. Of cfg it uses the name, addresses and
// port of the node, its labels, the cluster's DNS, Report and Ready.
func NewAgent(cfg Config, host Host) *Agent {
	n := host.Node
	n.Name, n.IPs, n.Port, n.Labels = cfg.NodeName, cfg.NodeIPs, cfg.Port, cfg.NodeLabels
	n.Client, n.Recorder, n.Runtime, n.Images = host.Client, host.Recorder, host.CRI.Runtime, host.CRI.Images
	n.Report, n.Ready = cfg.Report, cfg.Ready
	controller := node.New(n)

	host.Probes.Runtime = host.CRI.Runtime
	host.Probes.Record = func(p *v1.Pod, container, kind, reason, message string) {
		host.Recorder.Event(pod.ContainerRef(p, container), kind, reason, message)
	}
	prober := probes.New(host.Probes)

	host.Images.Images, host.Images.Pulled = host.CRI.Images, controller.Recheck
	puller := images.New(host.Images)

	p := host.Pods
	p.NodeName, p.NodeObject = cfg.NodeName, controller.Object
	for _, ip := range cfg.NodeIPs {
		p.Node.IPs = append(p.Node.IPs, ip.String())
	}
	p.Render.IPs = p.Node.IPs
	p.Render.ClusterDNS, p.Render.ClusterDomain = slices.Clone(cfg.ClusterDNS), cfg.ClusterDomain
	p.Render.Allocatable, p.Render.MemoryCapacity = node.Allocatable(n.Host.Capacity), n.Host.Capacity.Memory().Value()
	p.Render.RecursiveReadOnly = p.Node.RecursiveReadOnly
	p.Client, p.Recorder, p.Report = host.Client, host.Recorder, cfg.Report
	p.Runtime, p.CRI, p.NetworkError = host.CRI, host.CRI.Runtime, host.CRI.NetworkError
	p.Probes, p.Images = prober, puller
	return &Agent{Node: controller, Probes: prober, Pods: pod.New(p)}
}

// Run runs the agent until ctx ends or one of its components fails. Containers run on.
func (a *Agent) Run(ctx context.Context) error {
	defer a.Probes.Stop()
	return runAll(ctx, a.Node, a.Pods)
}
