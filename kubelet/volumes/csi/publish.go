package csi

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/volumes"
)

const (
	// republishPeriod is for drivers that want to be called again and again, about as often as
	// upstream's kubelet does.
	republishPeriod = time.Minute
	// growthPeriod is how long it may take to see that a volume has been expanded.
	growthPeriod = 30 * time.Second
)

// use of a volume by a Pod.
type use struct {
	// published says that this process has published the volume, completely.
	published bool
	tokens    map[string]*authenticationv1.TokenRequest // by audience
	// size of the volume as far as this node knows.
	size resource.Quantity
	// failed says that the last attempt to expand it did, and inUse that there is no use in trying.
	failed, inUse bool
}

// Publish implements volumes.Plugin. The driver is called once for a Pod and once more by each new
// process, unless its CSIDriver requires republishing. The volume stays published if that fails.
func (p *Plugin) Publish(
	ctx context.Context, spec volumes.Spec, volume volumes.Volume, paths volumes.Paths,
) (volumes.Published, error) {
	s := sourceOf(spec)
	info, err := p.info(ctx, s.driver)
	if err != nil {
		return volumes.Published{}, err
	}
	u, republish := p.use(paths.Target), info != nil && ptr.Deref(info.Spec.RequiresRepublish, false)
	if !u.published || republish {
		if err := p.call(ctx, spec, volume, paths, info, u); err != nil {
			return volumes.Published{}, err
		}
		u.published = true
	}
	out := volumes.Published{Mounted: volumes.Mounted{
		HostPath: paths.Target, Device: volume.Block, ReadOnly: s.readOnly, SELinuxRelabel: !volume.Block,
	}}
	if volume.Block { // the driver may have made a link
		if out.HostPath, err = filepath.EvalSymlinks(paths.Target); err != nil {
			return volumes.Published{}, fmt.Errorf("finding the block device of CSI volume %s: %w", s.handle, err)
		}
	}
	if republish {
		out.Next = time.Now().Add(republishPeriod)
	}
	if spec.Claim != nil && spec.PersistentVolume.Spec.StorageClassName != "" { // others never grow
		p.expand(ctx, spec, paths)
		out.Next = time.Now().Add(growthPeriod)
	}
	return out, nil
}

// use returns what is known of a target. Calls for one target do not overlap.
func (p *Plugin) use(target string) *use {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.uses[target] == nil {
		p.uses[target] = &use{tokens: map[string]*authenticationv1.TokenRequest{}}
	}
	return p.uses[target]
}

// call has the driver publish the volume, and gives the volume to the Pod's fsGroup.
func (p *Plugin) call(
	ctx context.Context, spec volumes.Spec, volume volumes.Volume, paths volumes.Paths,
	info *storagev1.CSIDriver, u *use,
) error {
	s := sourceOf(spec)
	d, err := p.driver(s.driver, spec.Pod.UID)
	if err != nil {
		return err
	}
	request := &csipb.NodePublishVolumeRequest{
		VolumeId: s.handle, TargetPath: paths.Target, StagingTargetPath: paths.Staging,
		VolumeCapability: capabilityOf(spec, s, d), Readonly: s.readOnly,
	}
	if request.PublishContext, err = p.publishContext(ctx, s, volume); err != nil {
		return err
	}
	if request.Secrets, err = p.secret(ctx, s.publishSecret); err != nil {
		return err
	}
	request.VolumeContext = volumeContext(spec.Pod, s, info)
	switch tokens, err := p.tokens(ctx, spec.Pod, u, info); {
	case err != nil:
		return err
	case tokens == "":
	case ptr.Deref(info.Spec.ServiceAccountTokenInSecrets, false):
		request.Secrets = with(request.Secrets, tokensKey, tokens)
	default:
		request.VolumeContext = with(request.VolumeContext, tokensKey, tokens)
	}
	if _, err := d.NodePublishVolume(ctx, request); err != nil {
		return err
	}
	if !volume.Block && !d.ownsVolumes() && setsOwnership(spec, s, info) {
		return volumes.SetOwnership(spec.Pod, paths.Target)
	}
	return nil
}

func with(m map[string]string, key, value string) map[string]string {
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}

// volumeContext is what the driver has said about the volume, with the Pod if it wants that.
func volumeContext(pod *v1.Pod, s source, info *storagev1.CSIDriver) map[string]string {
	attributes := maps.Clone(s.attributes)
	if info == nil || !ptr.Deref(info.Spec.PodInfoOnMount, false) {
		return attributes
	}
	for key, value := range map[string]string{
		"pod.name": pod.Name, "pod.namespace": pod.Namespace, "pod.uid": string(pod.UID),
		"serviceAccount.name": pod.Spec.ServiceAccountName, "ephemeral": strconv.FormatBool(s.inline),
	} {
		attributes = with(attributes, "csi.storage.k8s.io/"+key, value)
	}
	return attributes
}

// setsOwnership says whether the volume is given to the Pod's fsGroup, if it has one. By default only
// volumes that one node writes are, and only if they are known to have a file system.
func setsOwnership(spec volumes.Spec, s source, info *storagev1.CSIDriver) bool {
	policy := storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy
	if info != nil {
		policy = ptr.Deref(info.Spec.FSGroupPolicy, policy)
	}
	switch {
	case s.readOnly || policy == storagev1.NoneFSGroupPolicy:
		return false
	case policy == storagev1.FileFSGroupPolicy:
		return true
	case s.fsType == "" || s.inline:
		return s.fsType != ""
	}
	modes := spec.PersistentVolume.Spec.AccessModes
	return slices.Contains(modes, v1.ReadWriteOnce) || slices.Contains(modes, v1.ReadWriteOncePod)
}

// Unpublish implements volumes.StagingPlugin.
func (p *Plugin) Unpublish(ctx context.Context, volume volumes.Volume, target string) error {
	p.mu.Lock()
	delete(p.uses, target)
	p.mu.Unlock()
	d, err := p.driver(volume.Attributes[driverKey], podOf(target))
	if err != nil {
		return err
	}
	_, err = d.NodeUnpublishVolume(ctx, &csipb.NodeUnpublishVolumeRequest{
		VolumeId: volume.Attributes[handleKey], TargetPath: target,
	})
	return err
}

// podOf is the Pod in whose directory, RootDir/pods/UID, the target lies.
func podOf(target string) types.UID {
	parts := strings.Split(target, "/pods/")
	uid, _, _ := strings.Cut(parts[len(parts)-1], "/")
	return types.UID(uid)
}
