//go:build !linux

package volumes

import (
	"errors"
	"path/filepath"
	"runtime"

	"k8s.io/apimachinery/pkg/types"
)

// errNoMounts is why only a Manager with NoFiles works here.
var errNoMounts = errors.New("volumes are mounted on Linux only, and this is " + runtime.GOOS)

func mountTmpfs(string, int64, *int64) error { return errNoMounts }

func (m *Manager) bindSubPath(_ types.UID, _ string, _ int, sub SubPath, volume string) (string, error) {
	if m.cfg.NoFiles {
		return filepath.Join(volume, sub.Path), nil
	}
	return "", errNoMounts
}
