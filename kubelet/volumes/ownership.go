package volumes

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/volume"
	"k8s.io/utils/ptr"
)

// SetOwnership gives everything in the directory of a volume to the Pod's fsGroup, if it has one,
// and lets the group read and write. With fsGroupChangePolicy OnRootMismatch nothing is changed if
// the directory itself is right already. It is for volumes that outlive their Pod and are writable.
func SetOwnership(pod *v1.Pod, dir string) error {
	policy := ptr.Deref(pod.Spec.SecurityContext, v1.PodSecurityContext{}).FSGroupChangePolicy
	return own(dir, FSGroup(pod), false, policy)
}

// FSGroup returns the group that the Pod's volumes belong to, nil for none.
func FSGroup(pod *v1.Pod) *int64 {
	return ptr.Deref(pod.Spec.SecurityContext, v1.PodSecurityContext{}).FSGroup
}

// own gives everything in dir to the group, and lets it read, and write unless readOnly.
func own(dir string, group *int64, readOnly bool, policy *v1.PodFSGroupChangePolicy) error {
	ownership := volume.NewVolumeOwnership(attributes{readOnly: readOnly}, dir, group, policy, nil)
	if err := ownership.ChangePermissions(); err != nil {
		return fmt.Errorf("giving the volume to its fsGroup: %w", err)
	}
	return nil
}

// attributes has the method of upstream's Mounter that VolumeOwnership uses.
type attributes struct {
	volume.Mounter
	readOnly bool
}

func (a attributes) GetAttributes() volume.Attributes { return volume.Attributes{ReadOnly: a.readOnly} }
