//go:build linux

package kubelet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"flyball.dev/kubelet/cgroups"
	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/images"
	"flyball.dev/kubelet/logs"
	"flyball.dev/kubelet/node"
	"flyball.dev/kubelet/pod"
	"flyball.dev/kubelet/probes"
	"flyball.dev/kubelet/server"
	"flyball.dev/kubelet/stats"
	"flyball.dev/kubelet/volumes"
)

// Config of the node agent. All fields but NodeLabels, ResolvConf, Report and Ready are required.
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
	// Report is called with each failure that the agent as a whole suffers from and
	// that it goes on after: the Node cannot be registered, the runtime hangs.
	// Failures of a Pod are told by the Pod's status and Events. May be nil.
	Report func(error)
	// Ready is called once, when the Node is registered and Ready.
	Ready func()
}

// Run runs the node agent until ctx ends. Containers run on then, and are found
// again by the next Run. It waits for the runtime and the API server to come up.
func Run(ctx context.Context, cfg Config) error {
	for _, dir := range []string{cfg.RootDir, cfg.PodLogsDir, logLinks(cfg)} {
		if err := os.MkdirAll(dir, 0o755); err != nil { // log shippers read the logs
			return fmt.Errorf("making the kubelet's directories: %w", err)
		}
	}
	client, err := newClient(cfg.Client)
	if err != nil {
		return err
	}
	rt, err := cri.Dial(cfg.CRIEndpoint)
	if err != nil {
		return err
	}
	defer rt.Close()
	version, err := rt.Wait(ctx)
	if err != nil {
		return stopped(ctx, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&corev1client.EventSinkImpl{Interface: client.CoreV1().Events("")})
	recorder := broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: "kubelet", Host: cfg.NodeName})

	a := &agent{cfg: cfg, client: client, cri: rt, runtime: version.GetRuntimeName(), recorder: recorder}
	if a.recursiveReadOnly, err = rt.RecursiveReadOnly(ctx); err != nil {
		return stopped(ctx, err)
	}
	if err := a.build(); err != nil {
		return err
	}
	return stopped(ctx, a.run(ctx))
}

// stopped hides errors that only say that we were asked to stop.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// newClient is a client that does not limit itself: what the agent writes is
// bounded by what happens on the node, and the API server shares its time fairly.
func newClient(cfg *rest.Config) (kubernetes.Interface, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1
	cfg.UserAgent = "flyball-kubelet"
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("making the kubelet's API client: %w", err)
	}
	return client, nil
}

// agent is the parts of the node agent.
type agent struct {
	cfg      Config
	client   kubernetes.Interface
	cri      *cri.Client
	runtime  string
	recorder record.EventRecorder
	// recursiveReadOnly are the runtime handlers that can do that.
	recursiveReadOnly sets.Set[string]

	node     *node.Node
	cgroups  *cgroups.Manager
	volumes  *volumes.Manager
	probes   *probes.Manager
	services cache.SharedIndexInformer
	pods     *pod.Manager
	server   *server.Server
}

// build makes the parts, each from those before it.
func (a *agent) build() (err error) {
	cfg := a.cfg
	a.node, err = node.New(node.Config{
		Name: cfg.NodeName, IP: cfg.NodeIP, Client: a.client, Runtime: a.cri.Runtime, Images: a.cri.Images,
		Port: cfg.Port, MaxPods: cfg.MaxPods, RootDir: cfg.RootDir, Labels: cfg.NodeLabels,
		Recorder: a.recorder, Report: cfg.Report, Ready: cfg.Ready,
	})
	if err != nil {
		return err
	}
	if a.cgroups, err = cgroups.New(cgroups.Config{}); err != nil {
		return err
	}
	if err := a.cgroups.EnsureNode(a.node.Allocatable()); err != nil {
		return err
	}
	a.volumes = volumes.New(volumes.Config{
		RootDir: cfg.RootDir, Client: a.client, NodeName: cfg.NodeName, Allocatable: a.node.Allocatable,
		Changed: func(uid types.UID) { a.pods.Retry(uid) },
		Event:   func(p *v1.Pod, kind, reason, message string) { a.recorder.Event(p, kind, reason, message) },
	})
	a.probes = probes.New(probes.Config{Runtime: a.cri.Runtime, Record: a.containerEvent})
	a.services = informers.NewSharedInformerFactory(a.client, 0).Core().V1().Services().Informer()
	if err := a.buildPods(); err != nil {
		return err
	}
	a.server, err = server.New(server.Config{
		NodeName: cfg.NodeName, Client: a.client, Pods: a.pods, Runtime: a.cri.Runtime,
		Stats: stats.New(stats.Config{
			NodeName: cfg.NodeName, Runtime: a.cri.Runtime, Images: a.cri.Images,
			RootDir: cfg.RootDir, PodLogsDir: cfg.PodLogsDir,
		}),
		Metrics: a.metrics(), ProbeMetrics: a.probes.MetricsHandler(), Configuration: a.configuration(),
		Healthy:     a.cri.Healthy,
		BindAddress: cfg.BindAddress, Port: cfg.Port, GetCertificate: cfg.GetCertificate, ClientCA: cfg.ClientCA,
	})
	return err
}

func (a *agent) buildPods() error {
	render, err := a.render()
	if err != nil {
		return err
	}
	a.pods = pod.New(pod.Config{
		NodeName: a.cfg.NodeName,
		Node:     pod.Node{IPs: []string{a.cfg.NodeIP.String()}, RuntimeName: a.runtime, RecursiveReadOnly: a.recursiveReadOnly},
		Render:   render, Client: a.client,
		Observer: a.cri, Sandboxes: a.cri.Runtime, Containers: a.cri.Runtime, Resizer: a.cri,
		Volumes: a.volumes, Cgroups: a.cgroups, Probes: a.probes,
		Images:     images.New(images.Config{Images: a.cri.Images, Secrets: a.volumes, Pulled: a.node.Recheck}),
		Env:        containers.EnvSources{Objects: a.volumes, Services: a.servicesOf},
		NodeObject: a.node.Object, NetworkError: a.cri.NetworkError,
		Report:   a.cfg.Report,
		Recorder: a.recorder, Leftovers: func() ([]types.UID, error) { return leftovers(a.volumes.ListPods, a.cgroups) },
		LogLinks: logLinks(a.cfg), AllocationDir: filepath.Join(a.cfg.RootDir, "allocations"),
	})
	return nil
}

// metrics are those of the Pods of this agent. They have a registry of their own:
// that of the process would keep those of an earlier agent for ever.
func (a *agent) metrics() prometheus.Gatherer {
	registry := prometheus.NewRegistry()
	registry.MustRegister(a.pods.Collectors()...)
	return registry
}

// render is what of this node enters CRI configs.
func (a *agent) render() (containers.Node, error) {
	resolv := a.cfg.ResolvConf
	if resolv == "" {
		resolv = "/etc/resolv.conf"
	}
	n, err := containers.DetectNode(resolv)
	if err != nil {
		return n, err
	}
	n.Name, n.IPs = a.cfg.NodeName, []netip.Addr{a.cfg.NodeIP}
	n.PodLogsDir, n.SeccompDir = a.cfg.PodLogsDir, filepath.Join(a.cfg.RootDir, "seccomp")
	n.ClusterDNS, n.ClusterDomain = a.cfg.ClusterDNS, a.cfg.ClusterDomain
	n.Allocatable, n.RecursiveReadOnly = a.node.Allocatable(), a.recursiveReadOnly
	return n, nil
}

// run runs the parts until ctx ends or one of them fails.
func (a *agent) run(ctx context.Context) error {
	defer a.probes.Stop()
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { a.services.RunWithContext(ctx); return nil })
	parts.Go(func() error { return a.volumes.Run(ctx) })
	parts.Go(func() error { return a.pods.Run(ctx) })
	parts.Go(func() error { return a.node.Run(ctx) })
	parts.Go(func() error { return a.collector().Run(ctx) })
	parts.Go(func() error {
		return logs.Rotator{Dir: a.cfg.PodLogsDir, Runtime: a.cri.Runtime, Policy: logs.DefaultPolicy}.Run(ctx)
	})
	parts.Go(func() error { return a.server.Run(ctx) })
	return parts.Wait()
}

// collector removes unused images when the disk fills up.
func (a *agent) collector() *images.Collector {
	return &images.Collector{
		Images: a.cri.Images, Containers: a.cri.Runtime, Removed: a.node.Recheck,
		Event: func(kind, reason, message string) {
			a.recorder.Event(node.Reference(a.cfg.NodeName), kind, reason, message)
		},
	}
}

// servicesOf lists the Services of a namespace, once they have been read.
func (a *agent) servicesOf(ctx context.Context, namespace string) ([]*v1.Service, error) {
	if !a.services.HasSynced() && !cache.WaitForCacheSync(ctx.Done(), a.services.HasSynced) {
		return nil, errors.New("services have not yet been read at least once, cannot construct envvars")
	}
	var list []*v1.Service
	err := cache.ListAllByNamespace(a.services.GetIndexer(), namespace, labels.Everything(), func(o any) {
		list = append(list, o.(*v1.Service)) //nolint:forcetypeassert // an informer of Services
	})
	return list, err
}

func (a *agent) containerEvent(p *v1.Pod, container, kind, reason, message string) {
	a.recorder.Event(pod.ContainerRef(p, container), kind, reason, message)
}

// logLinks is the directory of links to logs, beside that of the logs.
func logLinks(cfg Config) string { return filepath.Join(filepath.Dir(cfg.PodLogsDir), "containers") }
