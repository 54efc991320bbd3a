//go:build linux

package wiring

import (
	"context"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"k8s.io/utils/ptr"

	"flyball.dev/apis/apps/v1alpha1"
	embedded "flyball.dev/config"
	"flyball.dev/controllers"
	"flyball.dev/controlplane"
	"flyball.dev/host/instance"
	"flyball.dev/host/logging"
	"flyball.dev/host/status"
	"flyball.dev/host/supervisor"
	"flyball.dev/join"
	"flyball.dev/storage"
)

// cluster is what the components of a node need of its cluster.
type cluster struct {
	// etcd is up once the data directory is accepted. Nil where the server is another process.
	etcd *status.Entry
	// api is up once the API server answers and the node has credentials.
	api *status.Entry
	// bootstrap is up once roles and the Service of the cluster DNS exist.
	bootstrap *status.Entry
}

// Components returns the components of the role.
func (c Config) Components() *supervisor.Supervisor {
	s := &supervisor.Supervisor{}
	switch c.Role {
	case instance.Server:
		c.server(s)
	case instance.Agent:
		c.agent(s)
	case instance.Up:
		c.node(s, c.server(s), serving{certificate: c.credentials().GetCertificate})
	}
	return s
}

func (c Config) server(s *supervisor.Supervisor) cluster {
	plane := controlPlane{c, map[string]*status.Entry{}}
	for _, name := range []string{
		controlplane.PartEtcd, controlplane.PartAPIServer, controlplane.PartScheduler, controlplane.PartControllerManager,
		controlplane.PartBootstrap, controlplane.PartApprover, controlplane.PartCertificates, controlplane.PartDisk,
	} {
		plane.entries[name] = s.Status.Add(name)
	}
	s.AddGroup("control plane", plane, slices.Collect(maps.Values(plane.entries))...)
	bootstrap := plane.entries[controlplane.PartBootstrap]
	s.Add("controllers", loops{c}, bootstrap)
	if ptr.Deref(c.Storage.Snapshots, true) {
		s.Add("snapshots", snapshotController{c}, bootstrap)
	}
	return cluster{plane.entries[controlplane.PartEtcd], plane.entries[controlplane.PartAPIServer], bootstrap}
}

// controlPlane runs etcd and upstream's components.
type controlPlane struct {
	Config
	// entries are those of the components, by the names that controlplane gives them.
	entries map[string]*status.Entry
}

func (p controlPlane) Run(ctx context.Context) error {
	c, manifests := p.Config, []fs.FS{embedded.RBAC}
	if slices.Contains(c.ControllerKinds, v1alpha1.GroupVersion) { // otherwise something else may define our kinds
		manifests = []fs.FS{embedded.CRDs, embedded.RBAC}
	}
	var defaults []fs.FS
	if ptr.Deref(c.Storage.Driver, true) {
		manifests, defaults = append(manifests, embedded.Storage), append(defaults, embedded.StorageClass)
	}
	if ptr.Deref(c.Storage.Snapshots, true) {
		manifests = append(manifests, embedded.Snapshots)
		if ptr.Deref(c.Storage.Driver, true) {
			defaults = append(defaults, embedded.SnapshotClass)
		}
	}
	return controlplane.Run(ctx, controlplane.Config{
		DataDir: c.DataDir, RunDir: c.RunDir,
		NodeName: c.NodeName, NodeIPs: c.NodeAddrs,
		BindAddress: c.BindAddr, Port: c.Port,
		ClusterCIDRs: c.ClusterPrefixes, ServiceCIDRs: c.ServicePrefixes,
		ClusterDNS: c.DNSAddrs, ClusterDomain: c.ClusterDomain,
		AdminKubeconfig: instance.AdminKubeconfig,
		LogFile:         logging.Path(c.DataDir),
		OutOfSpace:      c.Restarter.Restart,
		Manifests:       manifests, Defaults: defaults,
		Progress: p.progress,
	})
}

func (p controlPlane) progress(component, state string, err error) {
	if state == controlplane.StateDown && err == nil {
		state = string(status.Stopped)
	}
	if e := p.entries[component]; e != nil {
		e.Set(status.State(state), err)
	}
}

// snapshotController binds VolumeSnapshots of all drivers.
type snapshotController struct{ Config }

func (c snapshotController) Run(ctx context.Context, e *status.Entry) error {
	client, err := join.Client(filepath.Join(c.DataDir, "server", "kubeconfig", "snapshots.kubeconfig"), "snapshots")
	if err != nil {
		return err
	}
	return storage.RunSnapshotController(ctx, storage.SnapshotConfig{Client: client, Ready: e.Up})
}

// loops runs the Deployment and ReplicaSet loops.
type loops struct{ Config }

func (c loops) Run(ctx context.Context, e *status.Entry) error {
	client, err := join.Client(filepath.Join(c.DataDir, "server", "kubeconfig", "controllers.kubeconfig"), "controllers")
	if err != nil {
		return err
	}
	return controllers.Run(ctx, controllers.Config{Client: client, Kinds: c.ControllerKinds, Ready: e.Up})
}
