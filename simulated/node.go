package simulated

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/version"

	"flyball.dev/kubelet"
	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/cri/remote"
	"flyball.dev/kubelet/images"
	"flyball.dev/kubelet/node"
	"flyball.dev/kubelet/pod"
	"flyball.dev/kubelet/pod/plan"
	"flyball.dev/kubelet/probes"
)

// simulatedNode is one node: the agent over a runtime in memory.
type simulatedNode struct {
	*kubelet.Agent

	name    string
	ip      netip.Addr
	runtime *runtime
	images  *imageStore
	podSrc  *podSource
	nodeSrc *nodeSource
	ready   chan struct{}
}

// newNode builds a node, which does nothing before run.
func (s *shared) newNode(i int) (*simulatedNode, error) {
	n := &simulatedNode{
		name: fmt.Sprintf("%s%d", s.cfg.Prefix, i), ip: s.nodeIP(i),
		runtime: newRuntime(), images: newImageStore(), podSrc: newPodSource(), ready: make(chan struct{}),
	}
	n.nodeSrc = &nodeSource{name: n.name, nodes: s.nodes.GetStore()}
	n.runtime.pod, n.images.pod = n.podNow, n.podNow
	n.runtime.podCIDRs, n.runtime.common = n.podCIDRs, s.addresses
	n.runtime.logs = s.logs
	client, err := s.clientOf(n.name)
	if err != nil {
		return nil, err
	}
	n.Agent = kubelet.NewAgent(kubelet.Config{
		NodeName: n.name, NodeIPs: []netip.Addr{n.ip}, Port: s.port, NodeLabels: s.cfg.Labels,
		ClusterDNS: s.cfg.ClusterDNS, ClusterDomain: s.cfg.ClusterDomain,
		Report: s.cfg.Report, Ready: func() { close(n.ready) },
	}, s.host(n, client, s.recorder(i, n.name)))
	return n, nil
}

// host is what a simulated node has in place of a host.
func (s *shared) host(n *simulatedNode, client kubernetes.Interface, recorder record.EventRecorder) kubelet.Host {
	capacity := s.capacity()
	return kubelet.Host{
		Client: client, Recorder: recorder, CRI: remote.New(n.runtime, n.images),
		Node: node.Config{
			Host: node.HostInfo{
				Capacity: capacity, Addresses: s.nodeAddresses(n),
				System: v1.NodeSystemInfo{
					MachineID: n.name, SystemUUID: n.name, BootID: n.name, KernelVersion: "simulated", OSImage: "Simulated (Flyball)",
					OperatingSystem: "linux", Architecture: s.cfg.Architecture, KubeletVersion: version.Get().String(),
				},
			},
			Source: n.nodeSrc, LeaseDuration: s.leaseDuration(),
		},
		Probes: probes.Config{Asker: asker{n.podNow}},
		Images: images.Config{Secrets: s.volumes},
		Pods: pod.Config{
			Node:    plan.Node{RuntimeName: runtimeName, RecursiveReadOnly: sets.New("")},
			Render:  containers.Node{MemoryCapacity: capacity.Memory().Value(), LowestOOMScoreAdj: -1000, CgroupV2: true},
			Pods:    n.podSrc,
			Volumes: s.volumes, Cgroups: noCgroups{}, HookTransport: hookTransport{},
			Env:      containers.EnvSources{Objects: s.volumes, Services: s.servicesOf},
			Parallel: maxPods, // no Pod needs to wait for another
		},
	}
}

// run runs the node until ctx ends.
func (n *simulatedNode) run(ctx context.Context) error {
	defer n.runtime.stop()
	return n.Run(ctx)
}

// podNow is a Pod of this node as the API server has it, nil if there is none.
func (n *simulatedNode) podNow(namespace, name string) *v1.Pod {
	p, _ := n.podSrc.Pod(namespace, name)
	return p
}

func (n *simulatedNode) podCIDRs() []netip.Prefix {
	object := n.Node.Object()
	if object == nil {
		return nil
	}
	var ranges []netip.Prefix
	for _, text := range object.Spec.PodCIDRs {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			ranges = append(ranges, prefix)
		}
	}
	return ranges
}

// clientOf is a client with the identity of a node.
func (s *shared) clientOf(name string) (kubernetes.Interface, error) {
	cfg := rest.CopyConfig(s.rest)
	cfg.Impersonate = identityOf(name)
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("making the API client of node %s: %w", name, err)
	}
	return client, nil
}

func identityOf(name string) rest.ImpersonationConfig {
	return rest.ImpersonationConfig{UserName: "system:node:" + name, Groups: []string{"system:nodes"}}
}

// noCgroups stands for the cgroups that no Pod has.
type noCgroups struct{}

func (noCgroups) EnsurePod(pod *v1.Pod) (string, error) {
	return "/kubepods/pod" + string(pod.UID), nil
}
func (noCgroups) GrowPod(*v1.Pod) error     { return nil }
func (noCgroups) RemovePod(types.UID) error { return nil }

// PodMemory implements pod.Cgroups. Nothing is used.
func (noCgroups) PodMemory(*v1.Pod) (usage, limit int64, lower bool, err error) {
	return 0, 0, false, nil
}

// hookTransport answers HTTP hooks: as with any other, an answer is a success.
type hookTransport struct{}

func (hookTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Status: "200 OK", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: http.NoBody, Request: r, Header: http.Header{},
	}, nil
}
