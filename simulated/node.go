package simulated

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	goruntime "runtime"
	"strconv"
	"time"

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

// simulatedNode is the agent on a runtime in memory.
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

// newNode creates a node, which does nothing before run.
func (s *shared) newNode(i int) (*simulatedNode, error) {
	n := &simulatedNode{name: s.cfg.Prefix + strconv.Itoa(i), ip: nodeIP(i), ready: make(chan struct{})}
	n.podSrc = &podSource{node: n.name, pods: s.pods.GetIndexer()}
	n.nodeSrc = &nodeSource{name: n.name, nodes: s.nodes.GetStore()}
	n.images = newImageStore(n.podSrc)
	n.runtime = newRuntime(n.podSrc, n.nodeSrc, s.addresses, s.logDir, s.streams)
	client, err := s.clientOf(n.name)
	if err != nil {
		return nil, err
	}
	n.Agent = kubelet.NewAgent(kubelet.Config{
		NodeName: n.name, NodeIPs: []netip.Addr{n.ip}, Port: s.port, ClusterDomain: "cluster.local",
		Ready: func() { close(n.ready) },
	}, s.host(n, client, s.recorder(i, n.name)))
	return n, nil
}

// host is what the agent of a node has instead of a real host.
func (s *shared) host(n *simulatedNode, client kubernetes.Interface, recorder record.EventRecorder) kubelet.Host {
	capacity, lease := capacity(), time.Duration(0) // as any node
	if s.cfg.Nodes > fewNodes {
		lease = slowLeases
	}
	return kubelet.Host{
		Client: client, Recorder: recorder, CRI: remote.New(n.runtime, n.images),
		Node: node.Config{
			Host: node.HostInfo{
				Capacity: capacity,
				// The API server connects to the server of all nodes at the host name.
				Addresses: []v1.NodeAddress{
					{Type: v1.NodeInternalIP, Address: n.ip.String()}, {Type: v1.NodeHostName, Address: serverHost},
				},
				System: v1.NodeSystemInfo{
					MachineID: n.name, SystemUUID: n.name, BootID: n.name, KernelVersion: "simulated", OSImage: "Simulated (Flyball)",
					OperatingSystem: "linux", Architecture: goruntime.GOARCH, KubeletVersion: version.Get().String(),
				},
			},
			Source: n.nodeSrc, LeaseDuration: lease,
		},
		Probes: probes.Config{Asker: asker{n.podSrc}},
		Images: images.Config{Secrets: s.volumes},
		Pods: pod.Config{
			Node:    plan.Node{RuntimeName: runtimeName, RecursiveReadOnly: sets.New("")},
			Render:  containers.Node{LowestOOMScoreAdj: -1000, CgroupV2: true},
			Pods:    n.podSrc,
			Volumes: s.volumes, Cgroups: noCgroups{}, HookTransport: hookTransport{},
			Env:      containers.EnvSources{Objects: s.volumes, Services: s.servicesOf},
			Parallel: maxPods, // starting a Pod costs nothing here
		},
	}
}

func (n *simulatedNode) run(ctx context.Context) error {
	defer n.runtime.stop()
	return n.Run(ctx)
}

func (s *shared) clientOf(name string) (kubernetes.Interface, error) {
	cfg := rest.CopyConfig(s.rest)
	cfg.Impersonate = identityOf(name)
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("creating the API client of node %s: %w", name, err)
	}
	return client, nil
}

func identityOf(name string) rest.ImpersonationConfig {
	return rest.ImpersonationConfig{UserName: "system:node:" + name, Groups: []string{"system:nodes"}}
}

// noCgroups implements pod.Cgroups without cgroups.
type noCgroups struct{}

func (noCgroups) EnsurePod(pod *v1.Pod) (string, error) {
	return "/kubepods/pod" + string(pod.UID), nil
}
func (noCgroups) GrowPod(*v1.Pod) error     { return nil }
func (noCgroups) RemovePod(types.UID) error { return nil }
func (noCgroups) PodMemory(*v1.Pod) (usage, limit int64, lower bool, err error) {
	return 0, 0, false, nil
}

// hookTransport answers HTTP hooks with success.
type hookTransport struct{}

func (hookTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: http.NoBody, Request: r}, nil
}
