package volumes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/volumes/plan"
)

// Plugin is one kind of volume. Its methods are idempotent, may wait for the API server until ctx
// ends, and are called for several Pods at once.
type Plugin interface {
	// Name is upstream's, such as kubernetes.io/empty-dir. Directories are called after it.
	Name() string
	// CanSupport says whether the volume is of this kind.
	CanSupport(spec Spec) bool
	// Publish makes the volume ready for its Pod at paths.Target, which does not exist at first. It
	// is called again when the Pod or an object that it refers to has changed, and after a restart.
	// If the plugin is not a StagingPlugin, volume is empty, and everything that Publish makes lies
	// below the target and is removed with the Pod's directory.
	Publish(ctx context.Context, spec Spec, volume Volume, paths Paths) (Published, error)
}

// StagingPlugin is a kind whose volumes are more than a directory of one Pod: Pods of the node
// share them, or something else than the node has to undo what was done. Each call is recorded on
// disk before it is made. Calls for one volume do not overlap.
type StagingPlugin interface {
	Plugin
	// Identify finds out which volume it is. What the volume still lacks and others will bring,
	// such as a bound claim, is a WaitingError; the plugin has the Pod reconciled when it is there.
	Identify(ctx context.Context, spec Spec) (Volume, error)
	// Stage makes the volume ready for Publish at path, whose parent exists. It is called again for
	// a volume that is staged after a restart.
	Stage(ctx context.Context, spec Spec, volume Volume, path string) error
	// Unpublish undoes Publish, which may never have been called or have failed. The Manager
	// removes the target if it is an empty directory or a file then.
	Unpublish(ctx context.Context, volume Volume, target string) error
	// Unstage undoes Stage in the same way, when no Pod has the volume any more.
	Unstage(ctx context.Context, volume Volume, path string) error
}

// StatsPlugin measures its volumes itself. Those of other plugins are measured by statfs.
type StatsPlugin interface {
	StagingPlugin
	// Stats measures the volume that is published at target and staged at staging, which is empty if
	// it is not staged. What the plugin does not know is nil. ErrNoStats has statfs measure it.
	Stats(ctx context.Context, volume Volume, target, staging string) (statsapi.FsStats, error)
}

// ErrNoStats is the error of a StatsPlugin that cannot measure a volume.
var ErrNoStats = errors.New("the plugin does not measure volumes")

// Spec is a volume in the spec of a Pod.
type Spec struct {
	Pod    *v1.Pod
	Volume *v1.Volume
	// Claim of the volume, and the PersistentVolume that it is bound to; both nil if the volume is
	// not a claim. They are read again every half a minute at most, when Publish is called. They are
	// shared and must not be changed.
	Claim            *v1.PersistentVolumeClaim
	PersistentVolume *v1.PersistentVolume
}

// Block says whether containers get the volume as a block device.
func (s Spec) Block() bool {
	return s.PersistentVolume != nil &&
		ptr.Deref(s.PersistentVolume.Spec.VolumeMode, v1.PersistentVolumeFilesystem) == v1.PersistentVolumeBlock
}

// Exclusive says whether only one Pod may have the volume at a time.
func (s Spec) Exclusive() bool {
	return s.PersistentVolume != nil &&
		slices.Contains(s.PersistentVolume.Spec.AccessModes, v1.ReadWriteOncePod)
}

// ReadOnly says whether the Pod's use of its claim forbids writing.
func (s Spec) ReadOnly() bool {
	return s.Volume.PersistentVolumeClaim != nil && s.Volume.PersistentVolumeClaim.ReadOnly
}

// specsOf are the volumes of a Pod that a container mounts or reads. A volume that no container
// uses is not mounted, so that it cannot keep the Pod from running.
func specsOf(pod *v1.Pod) []Spec {
	mounts, devices, _ := volumeutil.GetPodVolumeNames(pod, false)
	used := mounts.Union(devices)
	podutil.VisitContainers(&pod.Spec, podutil.AllContainers, func(c *v1.Container, _ podutil.ContainerType) bool {
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.FileKeyRef != nil {
				used.Insert(e.ValueFrom.FileKeyRef.VolumeName)
			}
		}
		return true
	})
	var specs []Spec
	for i := range pod.Spec.Volumes {
		if used.Has(pod.Spec.Volumes[i].Name) {
			specs = append(specs, Spec{Pod: pod, Volume: &pod.Spec.Volumes[i]})
		}
	}
	return specs
}

func (s Spec) target() plan.Target { return plan.Target{Pod: s.Pod.UID, Volume: s.Volume.Name} }

// Paths of a volume on the host.
type Paths struct {
	Target  string // for the Pod alone
	Staging string // where the volume is staged; empty if it is not
}

// Volume is a volume of a StagingPlugin on this node.
type Volume struct {
	// Name is unique on the node and the same for all Pods that share the volume: the plugin's
	// name, a slash and a handle.
	Name v1.UniqueVolumeName `json:"name"`
	// Attach, Stage and Exclusive are those of plan.State.
	Attach    bool `json:"attach,omitempty"`
	Stage     bool `json:"stage,omitempty"`
	Exclusive bool `json:"exclusive,omitempty"`
	// Block volumes are block devices: the target is a file or a device node, below volumeDevices of
	// the Pod's directory. What lies at the staging path is the plugin's business.
	Block bool `json:"block,omitempty"`
	// Attributes are what Unpublish and Unstage have to know; they are recorded.
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Published is a volume that is ready for its Pod.
type Published struct {
	Mounted
	// Next is when to call Publish again even if no object changed, zero for never.
	Next time.Time
}

// WaitingError is the error of a volume that waits for something which others will bring.
type WaitingError string

func (w WaitingError) Error() string { return string(w) }

// pluginFor returns the plugin of a volume, nil if there is none.
func (m *Manager) pluginFor(spec Spec) Plugin {
	p, _ := lo.Find(m.plugins, func(p Plugin) bool { return p.CanSupport(spec) })
	return p
}

// drivers are CSI drivers for kinds of volumes that the node itself has no plugin for.
var drivers = map[string]string{
	"awsElasticBlockStore": "ebs.csi.aws.com", "azureDisk": "disk.csi.azure.com", "azureFile": "file.csi.azure.com",
	"cephfs": "cephfs.csi.ceph.com", "cinder": "cinder.csi.openstack.org", "gcePersistentDisk": "pd.csi.storage.gke.io",
	"iscsi": "iscsi.csi.k8s.io", "nfs": "nfs.csi.k8s.io", "portworxVolume": "pxd.portworx.com",
	"rbd": "rbd.csi.ceph.com", "vsphereVolume": "csi.vsphere.vmware.com",
}

// unsupported is the error of a volume without a plugin.
func unsupported(spec Spec) error {
	kind := sourceOf(&spec.Volume.VolumeSource)
	if spec.PersistentVolume != nil {
		kind = sourceOf(&spec.PersistentVolume.Spec.PersistentVolumeSource)
	}
	switch driver := drivers[kind]; {
	case kind == "gitRepo":
		return errors.New("volume kind gitRepo is not supported: clone in an init container, into an emptyDir")
	case driver != "":
		return fmt.Errorf("volume kind %s is not supported: use a CSI driver, such as %s", kind, driver)
	}
	return fmt.Errorf("volume kind %s is not supported: use a CSI driver", kind)
}

// sourceOf is the name of the field of the source that is set, as users write it.
func sourceOf(source any) string {
	fields, _ := runtime.DefaultUnstructuredConverter.ToUnstructured(source)
	return strings.Join(lo.Keys(fields), ", ")
}
