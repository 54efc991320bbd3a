package kubelet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/cri/remote"
	"flyball.dev/kubelet/images"
	"flyball.dev/kubelet/node"
	"flyball.dev/kubelet/pod"
	"flyball.dev/kubelet/pod/plan"
	"flyball.dev/kubelet/probes"
	"flyball.dev/kubelet/volumes"
)

// Config of the node agent. All fields but SharedRuntime, CNIConfig, NodeLabels, AllowedUnsafeSysctls, the two about
// images, ResolvConf, Report, Metrics and Ready are required.
type Config struct {
	// NodeName is the name of the Node object, NodeIP the address it reports.
	NodeName string
	NodeIP   netip.Addr
	// Client is how to reach the API server, with the identity of the node.
	Client *rest.Config
	// RootDir holds the files of Pods, /var/lib/flyball/kubelet by default;
	// PodLogsDir their logs, /var/log/pods.
	RootDir, PodLogsDir string
	// CRIEndpoint is the runtime's address, unix:///….sock.
	CRIEndpoint string
	// SharedRuntime says that others may use the runtime too. Only the sandboxes and containers that carry our
	// RootDir as label are ours then; all are otherwise, those of older versions of us included.
	SharedRuntime bool
	// CNIConfig is the file without which Pods have no network, whatever a shared runtime says; none if empty.
	CNIConfig string
	// ClusterDNS and ClusterDomain are what Pods resolve names with.
	ClusterDNS    []netip.Addr
	ClusterDomain string
	// ResolvConf is the name service of the host; /etc/resolv.conf if empty.
	ResolvConf string
	// BindAddress and Port are where the HTTPS server listens. GetCertificate is what
	// it shows, asked at each handshake since it may be renewed or not be there yet;
	// ClientCA signs the clients that it accepts.
	BindAddress    netip.Addr
	Port           int
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	ClientCA       *x509.CertPool
	// MaxPods is how many Pods the Node offers to run.
	MaxPods int
	// NodeLabels are set on the Node object.
	NodeLabels map[string]string
	// AllowedUnsafeSysctls are sysctls, or what they begin with and a *, that Pods may set besides the safe ones.
	AllowedUnsafeSysctls []string
	// ImagePullCredentialsVerificationPolicy says which images that are present need the credentials they were pulled with,
	// as upstream's field of this name; NeverVerifyPreloadedImages if empty. PreloadedImagesVerificationAllowlist are those
	// that do not, under NeverVerifyAllowlistedImages.
	ImagePullCredentialsVerificationPolicy string
	PreloadedImagesVerificationAllowlist   []string
	// Report is called with each failure that the agent as a whole suffers from and
	// that it goes on after: the Node cannot be registered, the runtime hangs.
	// Failures of a Pod are told by the Pod's status and Events. May be nil.
	Report func(error)
	// Metrics are served under /metrics besides the agent's own. May be nil.
	Metrics []prometheus.Collector
	// Ready is called once, when the Node is registered and Ready.
	Ready func()
}

// Host is what an agent works on: this machine (machine.go), or what package simulated has in its place. All fields are
// required but those that say what happens without them.
type Host struct {
	// Client has the identity of the node and does not limit itself; Recorder publishes its Events.
	Client   kubernetes.Interface
	Recorder record.EventRecorder

	// CRI is the container runtime. RuntimeName is what it calls itself, and RecursiveReadOnly are its handlers that can make
	// mounts recursively read-only.
	CRI               *remote.Client
	RuntimeName       string
	RecursiveReadOnly sets.Set[string]
	// Machine is what the Node says of the machine; this one if nil.
	Machine *node.Machine
	// Render is what of the host enters CRI configs. What Config says is filled in.
	Render containers.Node
	// Volumes and Cgroups are the files and the groups of Pods. Leftovers lists Pods of which some may be left; none if nil.
	Volumes   *volumes.Manager
	Cgroups   pod.Cgroups
	Leftovers func() ([]types.UID, error)
	// LogLinks and AllocationDir are directories, see pod.Config; without them nothing is written.
	LogLinks, AllocationDir string
	// ImageAccess says which Pods may use an image that is present; all if nil.
	ImageAccess *images.Access
	// Images stands before the rooms that pull images; nothing does if it is nil.
	Images func(pod.Images) pod.Images
	// Asker and HookTransport take the place of what goes to the network for probes and hooks. May be nil.
	Asker         probes.Asker
	HookTransport http.RoundTripper

	// Pods and Node are where the Pods of the node and its object are learnt of; watches of them if nil.
	Pods pod.Source
	Node node.Source
	// Sysctls says which sysctls of a Pod the host forbids, see pod.Config; none if nil.
	Sysctls func(*v1.Pod) (reason, message string)
	// Services lists those of a namespace.
	Services func(ctx context.Context, namespace string) ([]*v1.Service, error)

	// LeaseDuration and Parallel are those of node.Config and pod.Config, with their defaults.
	LeaseDuration time.Duration
	Parallel      int
}

// Agent is the rooms that every node has, wired together.
type Agent struct {
	Node   *node.Node
	Probes *probes.Manager
	Pods   *pod.Manager
}

// NewAgent makes the rooms, each from those before it. They do nothing before Run. Of cfg it takes what every node has: name,
// address and port, the cluster's DNS, MaxPods, labels, Report and Ready.
func NewAgent(cfg Config, host Host) (*Agent, error) {
	a := &Agent{}
	var err error
	a.Node, err = node.New(node.Config{
		Name: cfg.NodeName, IP: cfg.NodeIP, Client: host.Client, Runtime: host.CRI.Runtime, Images: host.CRI.Images,
		Port: cfg.Port, MaxPods: cfg.MaxPods, RootDir: cfg.RootDir, Labels: cfg.NodeLabels,
		Machine: host.Machine, Source: host.Node, LeaseDuration: host.LeaseDuration,
		Recorder: host.Recorder, Report: cfg.Report, Ready: cfg.Ready,
		VolumesInUse: host.Volumes.VolumesInUse, Changed: host.Volumes.NodeChanged,
	})
	if err != nil {
		return nil, err
	}
	a.Probes = probes.New(probes.Config{
		Runtime: host.CRI.Runtime, Asker: host.Asker,
		Record: func(p *v1.Pod, container, kind, reason, message string) {
			host.Recorder.Event(pod.ContainerRef(p, container), kind, reason, message)
		},
	})
	var pull pod.Images = images.New(images.Config{
		Images: host.CRI.Images, Secrets: host.Volumes, Access: host.ImageAccess, Pulled: a.Node.Recheck,
	})
	if host.Images != nil {
		pull = host.Images(pull)
	}
	a.Pods = pod.New(pod.Config{
		NodeName: cfg.NodeName,
		Node:     plan.Node{IPs: []string{cfg.NodeIP.String()}, RuntimeName: host.RuntimeName, RecursiveReadOnly: host.RecursiveReadOnly},
		Render:   a.render(cfg, host), Client: host.Client, Pods: host.Pods,
		Observer: host.CRI, Sandboxes: host.CRI.Runtime, Containers: host.CRI.Runtime, Resizer: host.CRI,
		Volumes: host.Volumes, Cgroups: host.Cgroups, Probes: a.Probes, Images: pull,
		Env:        containers.EnvSources{Objects: host.Volumes, Services: host.Services},
		NodeObject: a.Node.Object, Sysctls: host.Sysctls, NetworkError: host.CRI.NetworkError,
		Report: cfg.Report, Recorder: host.Recorder, HookTransport: host.HookTransport,
		Leftovers: host.Leftovers, LogLinks: host.LogLinks, AllocationDir: host.AllocationDir,
		Parallel: host.Parallel,
	})
	return a, nil
}

// render is what of this node enters CRI configs.
func (a *Agent) render(cfg Config, host Host) containers.Node {
	n := host.Render
	n.Name, n.IPs = cfg.NodeName, []netip.Addr{cfg.NodeIP}
	n.ClusterDNS, n.ClusterDomain = cfg.ClusterDNS, cfg.ClusterDomain
	n.Allocatable, n.RecursiveReadOnly = a.Node.Allocatable(), host.RecursiveReadOnly
	return n
}

// Run runs the rooms until ctx ends or one of them fails.
func (a *Agent) Run(ctx context.Context) error {
	defer a.Probes.Stop()
	rooms, ctx := errgroup.WithContext(ctx)
	rooms.Go(func() error { return a.Pods.Run(ctx) })
	rooms.Go(func() error { return a.Node.Run(ctx) })
	return rooms.Wait()
}
