//go:build linux

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
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
	"flyball.dev/kubelet/cri/remote"
	"flyball.dev/kubelet/images"
	"flyball.dev/kubelet/images/gc"
	"flyball.dev/kubelet/logs"
	"flyball.dev/kubelet/node"
	"flyball.dev/kubelet/server"
	"flyball.dev/kubelet/stats"
	"flyball.dev/kubelet/stats/cadvisor"
	"flyball.dev/kubelet/volumes"
)

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
	rt, err := remote.Dial(cfg.CRIEndpoint)
	if err != nil {
		return err
	}
	defer rt.Close()
	rt.Owned = cfg.owned()
	if cfg.CNIConfig != "" {
		rt.RequireNetwork(cfg.CNIConfig)
	}
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

	host := Host{Client: client, Recorder: recorder, CRI: rt, RuntimeName: version.GetRuntimeName()}
	if host.RecursiveReadOnly, err = rt.RecursiveReadOnly(ctx); err != nil {
		return stopped(ctx, err)
	}
	m := &machine{cfg: cfg, host: host}
	if err := m.build(ctx); err != nil {
		return err
	}
	return stopped(ctx, m.run(ctx))
}

// owned are the labels of what is ours in the runtime; empty if all of it is.
func (c Config) owned() map[string]string {
	if !c.SharedRuntime {
		return nil
	}
	return cri.OwnedBy(c.RootDir)
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

// machine is the agent on this machine, and what only a machine needs.
type machine struct {
	cfg  Config
	host Host

	*Agent
	cgroups  *cgroups.Manager
	volumes  *volumes.Manager
	services cache.SharedIndexInformer
	server   *server.Server
}

// build makes what Host asks for, the agent on it, and the server before it.
func (m *machine) build(ctx context.Context) (err error) {
	cfg, host := m.cfg, &m.host
	if m.cgroups, err = cgroups.New(cgroups.Config{}); err != nil {
		return err
	}
	m.volumes, err = volumes.New(volumes.Config{
		RootDir: cfg.RootDir, Client: host.Client, NodeName: cfg.NodeName,
		Allocatable:  func() v1.ResourceList { return m.Node.Allocatable() },
		Node:         func() *v1.Node { return m.Node.Object() },
		InUseChanged: func() { m.Node.Recheck() },
		Changed:      func(uid types.UID) { m.Pods.Retry(uid) },
		Event:        func(p *v1.Pod, kind, reason, message string) { host.Recorder.Event(p, kind, reason, message) },
	})
	if err != nil {
		return err
	}
	m.services = informers.NewSharedInformerFactory(host.Client, 0).Core().V1().Services().Informer()
	if host.Render, err = render(cfg); err != nil {
		return err
	}
	if host.Sysctls, err = newSysctls(ctx, cfg.AllowedUnsafeSysctls); err != nil {
		return err
	}
	if host.ImageAccess, err = images.NewAccess(ctx, images.AccessConfig{
		Dir: cfg.RootDir, Images: host.CRI.Images,
		Policy: cfg.ImagePullCredentialsVerificationPolicy, Allowlist: cfg.PreloadedImagesVerificationAllowlist,
	}); err != nil {
		return err
	}
	host.Volumes, host.Cgroups, host.Services = m.volumes, m.cgroups, m.servicesOf
	host.Leftovers = func() ([]types.UID, error) { return leftovers(m.volumes.ListPods, m.cgroups) }
	host.LogLinks, host.AllocationDir = logLinks(cfg), filepath.Join(cfg.RootDir, "allocations")
	if m.Agent, err = NewAgent(cfg, *host); err != nil {
		return err
	}
	if err := m.cgroups.EnsureNode(m.Node.Allocatable()); err != nil {
		return err
	}
	usage, err := cadvisor.NewHandler(cadvisor.Config{
		Runtime: host.CRI.Runtime, Cgroups: m.cgroups, Dirs: []string{cfg.RootDir, cfg.PodLogsDir},
	})
	if err != nil {
		return err
	}
	metrics, err := m.metrics()
	if err != nil {
		return err
	}
	m.server, err = server.New(server.Config{
		NodeName: cfg.NodeName, Client: host.Client, Pods: m.Pods, Runtime: host.CRI.Runtime,
		Stats: stats.New(stats.Config{
			NodeName: cfg.NodeName, Runtime: host.CRI.Runtime, Images: host.CRI.Images, Owned: host.CRI.Owned,
			RootDir: cfg.RootDir, PodLogsDir: cfg.PodLogsDir,
		}),
		Metrics: metrics, ProbeMetrics: m.Probes.MetricsHandler(), Cadvisor: usage,
		Configuration: configuration(cfg, m.Node.Reserved()),
		Healthy:       host.CRI.Healthy,
		BindAddress:   cfg.BindAddress, Port: cfg.Port, GetCertificate: cfg.GetCertificate, ClientCA: cfg.ClientCA,
	})
	return err
}

// render is what of this machine enters CRI configs.
func render(cfg Config) (containers.Node, error) {
	resolv := cfg.ResolvConf
	if resolv == "" {
		resolv = "/etc/resolv.conf"
	}
	n, err := containers.DetectNode(resolv)
	n.Owner = cfg.RootDir
	n.PodLogsDir, n.SeccompDir = cfg.PodLogsDir, filepath.Join(cfg.RootDir, "seccomp")
	return n, err
}

// run runs all parts until ctx ends or one of them fails.
func (m *machine) run(ctx context.Context) error {
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { m.services.RunWithContext(ctx); return nil })
	parts.Go(func() error { return m.volumes.Run(ctx) })
	parts.Go(func() error { return m.Run(ctx) })
	parts.Go(func() error { return m.collector().Run(ctx) })
	parts.Go(func() error {
		return logs.Rotator{
			Dir: m.cfg.PodLogsDir, Runtime: m.host.CRI.Runtime, Ours: m.host.CRI.Ours, Policy: logs.DefaultPolicy,
		}.Run(ctx)
	})
	parts.Go(func() error { return m.server.Run(ctx) })
	return parts.Wait()
}

// collector removes unused images when the disk fills up.
func (m *machine) collector() *gc.Controller {
	return &gc.Controller{
		Images: m.host.CRI.Images, Containers: m.host.CRI.Runtime, Access: m.host.ImageAccess, Removed: m.Node.Recheck,
		Event: func(kind, reason, message string) {
			m.host.Recorder.Event(node.Reference(m.cfg.NodeName), kind, reason, message)
		},
	}
}

// servicesOf lists the Services of a namespace, once they have been read.
func (m *machine) servicesOf(ctx context.Context, namespace string) ([]*v1.Service, error) {
	if !m.services.HasSynced() && !cache.WaitForCacheSync(ctx.Done(), m.services.HasSynced) {
		return nil, errors.New("services have not yet been read at least once, cannot construct envvars")
	}
	var list []*v1.Service
	err := cache.ListAllByNamespace(m.services.GetIndexer(), namespace, labels.Everything(), func(o any) {
		list = append(list, o.(*v1.Service)) //nolint:forcetypeassert // an informer of Services
	})
	return list, err
}

// logLinks is the directory of links to logs, beside that of the logs.
func logLinks(cfg Config) string { return filepath.Join(filepath.Dir(cfg.PodLogsDir), "containers") }
