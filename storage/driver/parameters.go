//go:build linux

package driver

import (
	"maps"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flyball.dev/internal/xfs"
)

// Parameters of a StorageClass.
const (
	// ParameterType is how volumes are stored: "auto" (the default), "directory" or "image".
	ParameterType = "type"
	// ParameterPath is another base directory than the driver's.
	ParameterPath = "path"
	// ParameterAllocation is "full" (the default) or "sparse"; for images.
	ParameterAllocation = "allocation"

	auto, full, asWritten = "auto", "full", "sparse"
	// What the external-provisioner adds.
	provisioners       = "csi.storage.k8s.io/"
	parameterFSType    = provisioners + "fstype"
	parameterClaim     = provisioners + "pvc/name"
	parameterNamespace = provisioners + "pvc/namespace"
	fsType             = "xfs"
)

const (
	mebibyte    = 1 << 20
	defaultSize = 1 << 30
	largestSize = 1 << 60
)

// mountFlags are the mount options that a StorageClass or PersistentVolume may ask for.
var mountFlags = map[string]uintptr{
	"defaults": 0, "rw": 0, "ro": unix.MS_RDONLY,
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
	"strictatime": unix.MS_STRICTATIME, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
}

// template is what a StorageClass and the access modes of a claim say about a volume.
type template struct {
	kind          string
	base          string
	sparse, block bool
	fs            bool // a file system was asked for by name
	claim         string
	namespace     string
}

func (d *Driver) parse(parameters map[string]string, capabilities []*csi.VolumeCapability) (*template, error) {
	t := &template{kind: auto, base: d.config.Dir}
	for key, value := range parameters {
		var allowed []string
		switch key {
		case ParameterType:
			t.kind, allowed = value, []string{auto, string(directory), string(image)}
		case ParameterPath:
			t.base, allowed = value, d.bases()
		case ParameterAllocation:
			t.sparse, allowed = value == asWritten, []string{full, asWritten}
		case parameterFSType:
			t.fs, allowed = true, []string{fsType}
		case parameterClaim:
			t.claim = value
		case parameterNamespace:
			t.namespace = value
		default:
			if !strings.HasPrefix(key, provisioners) {
				return nil, status.Errorf(codes.InvalidArgument, "the StorageClass has an unknown parameter %q; allowed are %q",
					key, []string{ParameterType, ParameterPath, ParameterAllocation, parameterFSType})
			}
		}
		if allowed != nil && !slices.Contains(allowed, value) {
			return nil, status.Errorf(codes.InvalidArgument, "parameter %q of the StorageClass is %q; allowed are %q", key, value, allowed)
		}
	}
	for i, capability := range capabilities {
		if err := checkCapability(capability); err != nil {
			return nil, err
		}
		block := capability.GetBlock() != nil
		if i > 0 && block != t.block {
			return nil, status.Error(codes.InvalidArgument, "a volume cannot be both a device and a file system")
		}
		t.block = block
		t.fs = t.fs || capability.GetMount().GetFsType() != ""
	}
	if t.kind == string(directory) && (t.block || t.fs || t.sparse) {
		return nil, status.Errorf(codes.InvalidArgument, "volumes with parameter %q %q have neither a device nor a file system of their own; use %q",
			ParameterType, directory, image)
	}
	if t.kind == auto {
		t.kind = string(image)
		if !t.block && !t.fs && !t.sparse && parameters[ParameterAllocation] == "" && d.quota.enabled(t.base) {
			t.kind = string(directory)
		}
	}
	return t, nil
}

// checkCapability says why the driver has not what is asked for, if so.
func checkCapability(capability *csi.VolumeCapability) error {
	switch mode := capability.GetAccessMode().GetMode(); mode {
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER, csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:
	case csi.VolumeCapability_AccessMode_UNKNOWN:
		return status.Error(codes.InvalidArgument, "the access mode is missing")
	default:
		return status.Errorf(codes.InvalidArgument,
			"a volume on the disk of a node cannot be used on several nodes, as access mode %v asks; use ReadWriteOnce or ReadWriteOncePod", mode)
	}
	if capability.GetBlock() == nil && capability.GetMount() == nil {
		return status.Error(codes.InvalidArgument, "the access type, block or mount, is missing")
	}
	if found := capability.GetMount().GetFsType(); found != "" && found != fsType {
		return status.Errorf(codes.InvalidArgument, "the file system type is %q; allowed are %q", found, []string{fsType})
	}
	_, err := flagsOf(capability)
	return err
}

func flagsOf(capability *csi.VolumeCapability) (flags uintptr, err error) {
	for _, option := range capability.GetMount().GetMountFlags() {
		flag, ok := mountFlags[option]
		if !ok {
			return 0, status.Errorf(codes.InvalidArgument, "the mount options contain %q; allowed are %q",
				option, slices.Sorted(maps.Keys(mountFlags)))
		}
		flags |= flag
	}
	return flags, nil
}

// least is the size in bytes of the smallest volume.
func (t *template) least() int64 {
	if t.kind == string(image) && !t.block {
		return xfs.MinSize
	}
	return mebibyte
}

// sizeIn returns the size that fits a range, in whole mebibytes: what is required, at least as much
// as the volume's content has and the kind needs. Without a wish it is 1 GiB.
func sizeIn(wanted *csi.CapacityRange, least int64) (int64, error) {
	required, limit := wanted.GetRequiredBytes(), wanted.GetLimitBytes()
	if required < 0 || limit < 0 || required > largestSize || (limit > 0 && limit < required) {
		return 0, status.Errorf(codes.OutOfRange, "there is no size between %d and %d bytes", required, limit)
	}
	if required == 0 {
		required = defaultSize
		if limit > 0 {
			required = min(required, limit/mebibyte*mebibyte)
		}
	}
	size := max((required+mebibyte-1)/mebibyte*mebibyte, least)
	if limit > 0 && size > limit {
		return 0, status.Errorf(codes.OutOfRange, "the least size of this volume is %d bytes, the limit %d", size, limit)
	}
	return size, nil
}
