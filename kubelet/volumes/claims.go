package volumes

import (
	"context"
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"

	"flyball.dev/kubelet/volumes/internal/claims"
	"flyball.dev/kubelet/volumes/plan"
)

// resolve completes the spec of a claim.
func (m *Manager) resolve(ctx context.Context, spec Spec) (Spec, error) {
	if claimName(spec) == "" || m.cfg.NoFiles {
		return spec, nil
	}
	b, err := m.claims.Get(ctx, spec.Pod, spec.Volume)
	if _, ok := errors.AsType[claims.WaitingError](err); ok {
		err = WaitingError(err.Error())
	}
	if err != nil {
		return spec, err
	}
	spec.Claim, spec.PersistentVolume = b.Claim, b.Volume
	return spec, m.usable(spec)
}

// claimed completes the spec with what is remembered.
func (m *Manager) claimed(spec Spec) Spec {
	known := m.claims.Known(spec.target())
	spec.Claim, spec.PersistentVolume = known.Claim, known.Volume
	return spec
}

// claimName is the name of the claim that the volume is, empty if it is none.
func claimName(spec Spec) string { return claims.Name(spec.Pod, spec.Volume) }

// usable says whether the containers use the volume in its mode, and this node may have it.
func (m *Manager) usable(spec Spec) error {
	const format = "volume %s has volumeMode %s, but is specified in %s" // upstream's words
	mounts, devices, _ := volumeutil.GetPodVolumeNames(spec.Pod, false)
	name := spec.Volume.Name
	switch block := spec.Block(); {
	case block && mounts.Has(name):
		return fmt.Errorf(format, name, v1.PersistentVolumeBlock, "volumeMounts")
	case !block && devices.Has(name):
		return fmt.Errorf(format, name, v1.PersistentVolumeFilesystem, "volumeDevices")
	case spec.PersistentVolume.Spec.NodeAffinity == nil || m.hasMounted(spec.Pod.UID):
		return nil
	}
	node := m.cfg.Node()
	if node == nil {
		return WaitingError("waiting for the Node, to check the PV's node affinity")
	}
	if err := storagehelpers.CheckNodeAffinity(spec.PersistentVolume, node.Labels); err != nil {
		return fmt.Errorf("NodeAffinity check failed: PV %s cannot be used on node %s: %w",
			spec.PersistentVolume.Name, node.Name, err)
	}
	return nil
}

// hasMounted says whether Mount has succeeded for the Pod. Labels of the Node may change afterwards.
func (m *Manager) hasMounted(uid types.UID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.states[uid] != nil && m.states[uid].mounted.Load() != nil
}

// name is what the directories of the volume are called, as upstream's.
func (s Spec) name() string {
	if s.PersistentVolume != nil {
		return s.PersistentVolume.Name
	}
	return s.Volume.Name
}

// nameOf is the name of a volume that Mount has made ready.
func (m *Manager) nameOf(t plan.Target) string {
	if v := m.claims.Known(t).Volume; v != nil {
		return v.Name
	}
	return t.Volume
}
