package volumes

import (
	"context"
	"errors"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Manager mounts, refreshes and unmounts the volumes of this node's Pods.
type Manager struct{ cfg Config }

// New returns a Manager that does nothing in the background until Run.
func New(cfg Config) *Manager { return &Manager{cfg: cfg} }

var errTODO = errors.New("being written")

// Run keeps contents fresh until ctx ends.
func (m *Manager) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Mount makes every volume of the Pod ready and returns them by name. It is
// idempotent and cheap when nothing changed: call it again whenever the Pod
// object changed (the downward API shows labels and annotations). From the
// first call until Unmount the ConfigMaps and Secrets that the Pod refers to
// are watched. Errors are *Error, joined if several volumes failed.
func (m *Manager) Mount(ctx context.Context, pod *v1.Pod) (map[string]Mounted, error) {
	return nil, errTODO
}

// Prepare makes the files of one container outside of its volumes.
func (m *Manager) Prepare(ctx context.Context, pod *v1.Pod, mounted map[string]Mounted, spec FilesSpec) (Files, error) {
	return Files{}, errTODO
}

// Unmount removes every mount and directory of the Pod and forgets it. It is
// idempotent, and works for Pods that were mounted by an earlier process.
func (m *Manager) Unmount(ctx context.Context, uid types.UID) error { return errTODO }

// ListPods returns the UIDs of all Pods that have a directory, for finding orphans.
func (m *Manager) ListPods() ([]types.UID, error) { return nil, errTODO }

// ConfigMap implements Source.
func (m *Manager) ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error) {
	return nil, errTODO
}

// Secret implements Source.
func (m *Manager) Secret(ctx context.Context, namespace, name string) (*v1.Secret, error) {
	return nil, errTODO
}
