package kubelet

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"flyball.dev/internal/trigger"
	"flyball.dev/kubelet/cgroups"
	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/cri/remote"
	"flyball.dev/kubelet/images"
	"flyball.dev/kubelet/images/gc"
	"flyball.dev/kubelet/logs"
	"flyball.dev/kubelet/node"
	"flyball.dev/kubelet/plugins"
	"flyball.dev/kubelet/pod"
	"flyball.dev/kubelet/pod/plan"
	"flyball.dev/kubelet/server"
	"flyball.dev/kubelet/stats"
	"flyball.dev/kubelet/stats/cadvisor"
	"flyball.dev/kubelet/volumes"
	"flyball.dev/kubelet/volumes/csi"
)

// Run runs the node agent of this host until ctx ends. Containers run on then, and the next Run
// finds them. It waits for the runtime and the API server to come up.
func Run(ctx context.Context, cfg Config) error {
	if err := makeDirs(cfg); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(ClientConfig(cfg.Client, "flyball-kubelet"))
	if err != nil {
		return fmt.Errorf("making the kubelet's API client: %w", err)
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&corev1client.EventSinkImpl{Interface: client.CoreV1().Events("")})
	recorder := broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: "kubelet", Host: cfg.NodeName})

	components, err := wire(ctx, cfg, Host{Client: client, Recorder: recorder, CRI: rt})
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // stopped while it waited for the runtime
	case err != nil:
		return err
	}
	return runAll(ctx, components...)
}

// Directories in RootDir that manifests of drivers name: of registration sockets, and of the sockets
// that drivers serve on.
const registryDir, driversDir = "plugins_registry", "plugins"

// makeDirs makes what others look for before the kubelet writes into it.
func makeDirs(cfg Config) error {
	for _, dir := range []struct {
		path string
		mode os.FileMode
	}{
		{cfg.RootDir, 0o755},
		{filepath.Join(cfg.RootDir, driversDir), 0o750},
		{filepath.Join(cfg.RootDir, registryDir), 0o750}, // upstream's modes
		{cfg.PodLogsDir, 0o755},
		{logLinks(cfg), 0o755}, // log shippers read the logs
	} {
		if err := os.MkdirAll(dir.path, dir.mode); err != nil {
			return fmt.Errorf("making the kubelet's directories: %w", err)
		}
	}
	return nil
}

// wire makes the components of the agent on this host, each of those before it, in the order in
// which they start.
func wire(ctx context.Context, cfg Config, host Host) ([]component, error) {
	version, err := host.CRI.Wait(ctx)
	if err != nil {
		return nil, err
	}
	host.Pods.Node = plan.Node{RuntimeName: version.GetRuntimeName()}
	if host.Pods.Node.RecursiveReadOnly, err = host.CRI.RecursiveReadOnly(ctx); err != nil {
		return nil, err
	}
	info, err := node.ReadHostInfo(cfg.RootDir, cfg.MaxPods)
	if err != nil {
		return nil, err
	}
	host.Node.Host, host.Node.RootDir = info, cfg.RootDir
	host.Node.Source, host.Node.Trigger = node.NewWatch(host.Client, cfg.NodeName), trigger.New()
	allocatable := node.Allocatable(info.Capacity)

	groups, err := cgroups.New(cgroups.Root)
	if err != nil {
		return nil, err
	}
	if err := groups.EnsureNode(allocatable); err != nil {
		return nil, err
	}
	changed := workqueue.NewTyped[types.UID]()
	csiVolumes := csi.New(csi.Config{
		Client: host.Client, NodeName: cfg.NodeName, Changed: changed.Add, Event: host.Recorder.Event,
	})
	vols, err := volumes.New(volumes.Config{
		RootDir: cfg.RootDir, Client: host.Client, NodeName: cfg.NodeName,
		Plugins:      []volumes.Plugin{csiVolumes},
		Allocatable:  func() v1.ResourceList { return allocatable },
		Node:         host.Node.Source.Node,
		InUseChanged: host.Node.Trigger.Set,
		Changed:      changed.Add,
		Event:        func(p *v1.Pod, kind, reason, message string) { host.Recorder.Event(p, kind, reason, message) },
	})
	if err != nil {
		return nil, err
	}
	host.Node.VolumesInUse, host.Node.Changed = vols.VolumesInUse, vols.NodeChanged
	services := newServices(host.Client)
	if host.Pods.Render, err = render(cfg); err != nil {
		return nil, err
	}
	sysctls, err := newSysctls(ctx, cfg.AllowedUnsafeSysctls)
	if err != nil {
		return nil, err
	}
	access, err := images.NewAccess(ctx, images.AccessConfig{
		Dir: cfg.RootDir, Images: host.CRI.Images,
		Policy: cfg.ImagePullCredentialsVerificationPolicy, Allowlist: cfg.PreloadedImagesVerificationAllowlist,
	})
	if err != nil {
		return nil, err
	}
	host.Images.Secrets, host.Images.Access = vols, access
	host.Pods.Volumes, host.Pods.Cgroups = vols, groups
	host.Pods.Env = containers.EnvSources{Objects: vols, Services: services.list}
	host.Pods.Sysctls = sysctls.forbid
	host.Pods.Leftovers = leftovers{files: vols, cgroups: groups}.list
	host.Pods.LogLinks, host.Pods.AllocationDir = logLinks(cfg), filepath.Join(cfg.RootDir, "allocations")
	agent := NewAgent(cfg, host)

	collector := &gc.Controller{
		Images: host.CRI.Images, Runtime: host.CRI.Runtime, Access: access, Removed: agent.Node.Recheck,
		Event: func(kind, reason, message string) {
			host.Recorder.Event(node.Reference(cfg.NodeName), kind, reason, message)
		},
	}
	rotator := logs.Rotator{Dir: cfg.PodLogsDir, Runtime: host.CRI.Runtime, Owner: host.CRI, Policy: logs.DefaultPolicy}

	srv, err := newServer(cfg, host, agent, groups, vols, csiVolumes)
	if err != nil {
		return nil, err
	}
	return []component{
		services, csiVolumes, vols, door(cfg, host, csiVolumes), agent, volumeChanges{changed, agent.Pods}, collector, rotator, srv,
	}, nil
}

// door is where drivers register.
func door(cfg Config, host Host, csiVolumes *csi.Plugin) *plugins.Controller {
	return plugins.New(plugins.Config{
		Dir:      filepath.Join(cfg.RootDir, registryDir),
		Handlers: map[string]plugins.Handler{registerapi.CSIPlugin: csiVolumes},
		Report: func(err error) {
			host.Recorder.Event(node.Reference(cfg.NodeName), v1.EventTypeWarning, "FailedPluginRegistration", err.Error())
		},
	})
}

// newServer makes the HTTPS server, with the metrics of all components.
func newServer(
	cfg Config, host Host, agent *Agent, groups *cgroups.Manager, vols *volumes.Manager, csiVolumes *csi.Plugin,
) (*server.Server, error) {
	usage, err := cadvisor.NewHandler(cadvisor.Config{
		Runtime: host.CRI.Runtime, Cgroups: groups, Dirs: []string{cfg.RootDir, cfg.PodLogsDir},
		Capacity: host.Node.Host.Capacity, System: host.Node.Host.System,
	})
	if err != nil {
		return nil, err
	}
	metrics, err := gatherer(collectors(cfg, agent.Pods, host.CRI, groups, vols, csiVolumes), cfg.Metrics)
	if err != nil {
		return nil, err
	}
	return server.New(server.Config{
		NodeName: cfg.NodeName, Client: host.Client, Pods: agent.Pods, Runtime: host.CRI.Runtime,
		Stats: stats.New(stats.Config{
			NodeName: cfg.NodeName, Runtime: host.CRI.Runtime, Images: host.CRI.Images, Owned: host.CRI.Owned,
			RootDir: cfg.RootDir, PodLogsDir: cfg.PodLogsDir, Volumes: vols.Stats,
		}),
		Metrics: metrics, ProbeMetrics: agent.Probes.MetricsHandler(), Cadvisor: usage,
		Configuration: configuration(cfg, node.Reserved(host.Node.Host.Capacity)),
		Healthy:       host.CRI.Healthy,
		BindAddress:   cfg.BindAddress, Port: cfg.Port, GetCertificate: cfg.GetCertificate, ClientCA: cfg.ClientCA,
	})
}

// volumeChanges notifies the workers of Pods when an object that a volume shows has changed.
// Volumes are made before Pods, so a queue is between them.
type volumeChanges struct {
	queue workqueue.TypedInterface[types.UID]
	pods  *pod.Manager
}

func (c volumeChanges) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, c.queue.ShutDown)()
	for {
		uid, shutdown := c.queue.Get()
		if shutdown {
			return nil
		}
		c.pods.Retry(uid)
		c.queue.Done(uid)
	}
}

// render is what CRI configs contain of this host.
func render(cfg Config) (containers.Node, error) {
	n, err := containers.DetectNode(cmp.Or(cfg.ResolvConf, "/etc/resolv.conf"))
	n.Owner = cfg.Owner
	n.PodLogsDir, n.SeccompDir = cfg.PodLogsDir, filepath.Join(cfg.RootDir, "seccomp")
	return n, err
}

// logLinks is the directory of links to logs, beside that of the logs.
func logLinks(cfg Config) string { return filepath.Join(filepath.Dir(cfg.PodLogsDir), "containers") }
