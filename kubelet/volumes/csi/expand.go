package csi

import (
	"context"
	"fmt"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/events"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"

	"flyball.dev/kubelet/volumes"
)

// expand has the driver enlarge a published volume when its claim is to have a larger one. The Pod
// runs meanwhile, and on, if that fails: failures are Events and in the claim's status, and expand is
// called again after a while.
func (p *Plugin) expand(ctx context.Context, spec volumes.Spec, paths volumes.Paths) {
	u := p.use(paths.Target)
	if u.size.IsZero() {
		u.size = spec.Claim.Status.Capacity[v1.ResourceStorage]
	}
	if u.inUse || planGrowth(spec.Claim, spec.PersistentVolume, u.size) == nil {
		return
	}
	// What the spec has may be half a minute old, and another Pod of the node may have come first.
	claim, err := p.cfg.Client.CoreV1().PersistentVolumeClaims(spec.Claim.Namespace).Get(ctx, spec.Claim.Name, metav1.GetOptions{})
	if err == nil {
		if g := planGrowth(claim, spec.PersistentVolume, u.size); g != nil {
			spec.Claim = claim
			err = p.grow(ctx, spec, paths, *g)
		}
	}
	if err != nil {
		klog.FromContext(ctx).V(2).Info("Cannot expand a volume, trying again", "pod", klog.KObj(spec.Pod),
			"claim", klog.KObj(spec.Claim), "err", err)
	}
}

// grow carries out what is planned. Its errors are those of the API server only.
func (p *Plugin) grow(
	ctx context.Context, spec volumes.Spec, paths volumes.Paths, g growth,
) (err error) {
	s, u, claim := sourceOf(spec), p.use(paths.Target), spec.Claim
	d, err := p.driver(s.driver, spec.Pod.UID)
	if err != nil {
		return err
	}
	if s.readOnly {
		u.inUse = true
		p.tell(spec, v1.EventTypeWarning, events.FileSystemResizeFailed, "requested read-only file system")
		return nil
	}
	if !d.capabilities.Has(csipb.NodeServiceCapability_RPC_EXPAND_VOLUME) {
		return p.grown(spec, u, g) // there is nothing to do on nodes
	}
	if !g.reported {
		if claim, err = volumeutil.MarkNodeExpansionInProgress(claim, p.cfg.Client); err != nil {
			return err
		}
		spec.Claim = claim
	}
	secrets, err := p.secret(ctx, s.expandSecret)
	if err == nil {
		_, err = d.NodeExpandVolume(ctx, &csipb.NodeExpandVolumeRequest{
			VolumeId: s.handle, VolumePath: paths.Target, StagingTargetPath: paths.Staging,
			CapacityRange:    &csipb.CapacityRange{RequiredBytes: g.size.Value()},
			VolumeCapability: capabilityOf(spec, s, d), Secrets: secrets,
		})
	}
	if err != nil {
		p.tell(spec, v1.EventTypeWarning, events.VolumeResizeFailed, err.Error())
		return p.notGrown(claim, u, g, err)
	}
	p.tell(spec, v1.EventTypeNormal, events.FileSystemResizeSuccess, "succeeded")
	return p.grown(spec, u, g)
}

// grown notes in the claim that the volume has its new size.
func (p *Plugin) grown(spec volumes.Spec, u *use, g growth) error {
	u.size, u.failed = g.size, false
	if g.reported {
		return nil
	}
	_, err := volumeutil.MarkNodeExpansionFinishedWithRecovery(spec.Claim, g.size, p.cfg.Client)
	return err
}

// notGrown notes in the claim why the volume has not its new size. If that is for good, or the user
// has asked for another size meanwhile, the controller may try a smaller one.
func (p *Plugin) notGrown(claim *v1.PersistentVolumeClaim, u *use, g growth, failure error) (err error) {
	if !isFinal(failure) {
		return nil
	}
	requested := claim.Spec.Resources.Requests[v1.ResourceStorage]
	infeasible := u.failed && requested.Cmp(g.size) != 0
	u.failed = true
	switch status.Code(failure) {
	case codes.FailedPrecondition: // it cannot be done while the volume is used
		u.inUse = true
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound:
		infeasible = true
	}
	switch {
	case g.reported:
	case infeasible:
		_, err = volumeutil.MarkNodeExpansionInfeasible(claim, p.cfg.Client, failure)
	default:
		_, err = volumeutil.MarkNodeExpansionFailedCondition(claim, p.cfg.Client, failure)
	}
	return err
}

// tell the users of the Pod and of the claim.
func (p *Plugin) tell(spec volumes.Spec, eventtype, reason, result string) {
	message := fmt.Sprintf("MountVolume.NodeExpandVolume for volume %q: %s", spec.PersistentVolume.Name, result)
	p.cfg.Event(spec.Pod, eventtype, reason, message)
	p.cfg.Event(spec.Claim, eventtype, reason, message)
}
