package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
)

// hostPath is a path of the host as it is; only its type is checked.
type hostPath struct{ source *v1.HostPathVolumeSource }

func (hostPath) directory() string { return "kubernetes.io~host-path" }

func (v hostPath) mount(context.Context, string) (result, error) {
	kind := v1.HostPathUnset
	if v.source.Type != nil {
		kind = *v.source.Type
	}
	if err := checkHostPath(v.source.Path, kind); err != nil {
		return result{}, err
	}
	return result{Mounted: Mounted{HostPath: v.source.Path}}, nil
}

// checkHostPath makes what is to be made and refuses what is of another type.
// Links are followed, as they are when the runtime mounts the path.
func checkHostPath(path string, want v1.HostPathType) error {
	switch want {
	case v1.HostPathUnset:
		return nil
	case v1.HostPathDirectoryOrCreate:
		want = v1.HostPathDirectory
		if missing(path) {
			if err := os.MkdirAll(path, 0o755); err != nil {
				return fmt.Errorf("making hostPath directory: %w", err)
			}
		}
	case v1.HostPathFileOrCreate:
		want = v1.HostPathFile
		if missing(path) {
			if err := createFile(path); err != nil {
				return err
			}
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("hostPath type check failed: %s is not a %s: %w", path, describe(want), err)
	}
	if got := typeOf(info.Mode()); got != want {
		return fmt.Errorf("hostPath type check failed: %s is not a %s, it's a %s", path, describe(want), got)
	}
	return nil
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// createFile makes an empty file, but not its directory: that is the API's contract.
func createFile(path string) error {
	if missing(filepath.Dir(path)) {
		return fmt.Errorf("making hostPath file %s: its directory does not exist; create it, or use type DirectoryOrCreate for it", path)
	}
	f, err := os.OpenFile(path, os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("making hostPath file: %w", err)
	}
	return f.Close()
}

func typeOf(mode fs.FileMode) v1.HostPathType {
	switch {
	case mode.IsRegular():
		return v1.HostPathFile
	case mode.IsDir():
		return v1.HostPathDirectory
	case mode&fs.ModeSocket != 0:
		return v1.HostPathSocket
	case mode&fs.ModeCharDevice != 0:
		return v1.HostPathCharDev
	case mode&fs.ModeDevice != 0:
		return v1.HostPathBlockDev
	}
	return v1.HostPathUnset
}

func describe(t v1.HostPathType) string {
	switch t {
	case v1.HostPathDirectory:
		return "directory"
	case v1.HostPathFile:
		return "file"
	case v1.HostPathSocket:
		return "socket"
	case v1.HostPathCharDev:
		return "character device"
	case v1.HostPathBlockDev:
		return "block device"
	}
	return string(t)
}
