package simulated

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/images"
	"flyball.dev/kubelet/node"
	"flyball.dev/kubelet/pod"
	"flyball.dev/kubelet/probes"
)

// simulatedNode is one node: the rooms of the agent over a runtime in memory.
type simulatedNode struct {
	name    string
	ip      netip.Addr
	runtime *runtime
	images  *imageStore
	podSrc  *podSource
	nodeSrc *nodeSource

	node   *node.Node
	pods   *pod.Manager
	probes *probes.Manager
	ready  chan struct{}
}

// newNode builds a node, which does nothing before run.
func (s *shared) newNode(i int) (*simulatedNode, error) {
	n := &simulatedNode{
		name: fmt.Sprintf("%s%d", s.cfg.Prefix, i), ip: s.nodeIP(i),
		runtime: newRuntime(), images: newImageStore(), podSrc: newPodSource(), ready: make(chan struct{}),
	}
	n.nodeSrc = &nodeSource{name: n.name, nodes: s.nodes.GetStore()}
	n.runtime.pod, n.images.pod = n.podNow, n.podNow
	n.runtime.podCIDR, n.runtime.common = n.podCIDR, s.addresses
	n.runtime.logs = s.logs
	client, err := s.clientOf(n.name)
	if err != nil {
		return nil, err
	}
	recorder := s.recorder(i, n.name)
	n.node, err = node.New(node.Config{
		Name: n.name, IP: n.ip, Client: client, Runtime: n.runtime, Images: n.images,
		Port: s.port, MaxPods: maxPods, Labels: s.cfg.Labels, LeaseDuration: s.leaseDuration(),
		Machine: &node.Machine{
			Capacity: s.capacity(), Addresses: s.nodeAddresses(n), ID: n.name,
			OS: "linux", Architecture: s.cfg.Architecture, Kernel: "simulated", Image: "Simulated (Flyball)",
		},
		Source: n.nodeSrc, Recorder: recorder, Report: s.cfg.Report, Ready: func() { close(n.ready) },
	})
	if err != nil {
		return nil, err
	}
	n.probes = probes.New(probes.Config{Asker: asker{n.podNow}, Record: func(p *v1.Pod, container, kind, reason, message string) {
		recorder.Event(pod.ContainerRef(p, container), kind, reason, message)
	}})
	n.build(s, client, recorder)
	return n, nil
}

// build makes the part that runs Pods.
func (n *simulatedNode) build(s *shared, client kubernetes.Interface, recorder record.EventRecorder) {
	handlers, allocatable := sets.New(""), n.node.Allocatable()
	observer := cri.New(n.runtime, n.images)
	n.pods = pod.New(pod.Config{
		NodeName: n.name,
		Node:     pod.Node{IPs: []string{n.ip.String()}, RuntimeName: runtimeName, RecursiveReadOnly: handlers},
		Render: containers.Node{
			Name: n.name, IPs: []netip.Addr{n.ip}, ClusterDNS: s.cfg.ClusterDNS, ClusterDomain: s.cfg.ClusterDomain,
			Allocatable: allocatable, MemoryCapacity: allocatable.Memory().Value(), LowestOOMScoreAdj: -1000,
			CgroupV2: true, RecursiveReadOnly: handlers,
		},
		Client: client, Pods: n.podSrc,
		Observer: observer, Sandboxes: n.runtime, Containers: n.runtime, Resizer: observer,
		Volumes: s.volumes, Cgroups: noCgroups{}, Probes: n.probes,
		Images:     imported{images.New(images.Config{Images: n.images, Secrets: s.volumes, Pulled: n.node.Recheck}), n.images},
		Env:        containers.EnvSources{Objects: s.volumes, Services: s.servicesOf},
		NodeObject: n.node.Object, NetworkError: observer.NetworkError,
		Report: s.cfg.Report, Recorder: recorder, HookTransport: hookTransport{},
		Parallel: maxPods, // nothing here is worth waiting for a turn
	})
}

// run runs the node until ctx ends.
func (n *simulatedNode) run(ctx context.Context) error {
	defer n.runtime.stop()
	defer n.probes.Stop()
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return n.pods.Run(ctx) })
	parts.Go(func() error { return n.node.Run(ctx) })
	return parts.Wait()
}

// podNow is a Pod of this node as the API server has it, nil if there is none.
func (n *simulatedNode) podNow(namespace, name string) *v1.Pod {
	p, _ := n.podSrc.Pod(namespace, name)
	return p
}

func (n *simulatedNode) podCIDR() netip.Prefix {
	object := n.node.Object()
	if object == nil {
		return netip.Prefix{}
	}
	from, err := netip.ParsePrefix(object.Spec.PodCIDR)
	if err != nil {
		return netip.Prefix{}
	}
	return from
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
