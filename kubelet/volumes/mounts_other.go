//go:build !linux

package volumes

import (
	"errors"
	"runtime"

	"k8s.io/apimachinery/pkg/types"
)

// errNoMounts is why only a Manager with NoFiles works here.
var errNoMounts = errors.New("volumes are mounted on Linux only, and this is " + runtime.GOOS)

func mountTmpfs(string, int64, *int64) error { return errNoMounts }

func (*Manager) bindSubPath(types.UID, string, int, SubPath, string) (string, error) {
	return "", errNoMounts
}
