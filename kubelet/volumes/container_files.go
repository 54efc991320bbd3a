package volumes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/volume/util/subpath"

	"flyball.dev/kubelet/volumes/internal/mounter"
	"flyball.dev/kubelet/volumes/plan"
)

// FilesSpec describes the files and mounts of one container that lie outside of its volumes.
// containers.Files makes it, Manager.Prepare carries it out.
type FilesSpec struct {
	Container string
	Attempt   uint32
	// Hosts is the Pod's /etc/hosts, nil if the container gets none.
	Hosts *HostsFile
	// TerminationLog asks for an empty file that the container may write to.
	TerminationLog bool
	// SubPaths by index of the container's volumeMounts.
	SubPaths map[int]SubPath
}

// HostsFile is an /etc/hosts: Header, then the content of NodeFile if that is set, then Entries.
type HostsFile struct{ Header, NodeFile, Entries string }

// SubPath is a path inside a volume, relative and already expanded.
type SubPath struct{ Volume, Path string }

// Files are the host paths of what a FilesSpec asked for.
type Files struct {
	EtcHosts, TerminationLog string
	SubPaths                 map[int]string
}

// Prepare makes the files of one container outside of its volumes. It is idempotent. A container
// whose files cannot be made waits with CreateContainerConfigError and the text of the error.
func (m *Manager) Prepare(ctx context.Context, pod *v1.Pod, mounted map[string]Mounted, spec FilesSpec) (Files, error) {
	files := Files{SubPaths: map[int]string{}}
	if spec.Hosts != nil {
		files.EtcHosts = filepath.Join(m.podDir(pod.UID), "etc-hosts")
	}
	if spec.TerminationLog {
		files.TerminationLog = m.TerminationLog(pod.UID, spec.Container, spec.Attempt)
	}
	for index, sub := range spec.SubPaths {
		vol, ok := mounted[sub.Volume]
		if !ok {
			return files, fmt.Errorf("cannot find volume %q to mount into container %q", sub.Volume, spec.Container)
		}
		files.SubPaths[index] = filepath.Join(vol.HostPath, sub.Path)
		if m.cfg.NoFiles {
			continue
		}
		path, err := mounter.SubPath(subpath.Subpath{
			VolumeMountIndex: index, Path: sub.Path, VolumePath: vol.HostPath,
			VolumeName: m.nameOf(plan.Target{Pod: pod.UID, Volume: sub.Volume}),
			PodDir:     m.podDir(pod.UID), ContainerName: spec.Container,
		})
		if err != nil {
			// The cause names paths of the host, which the user should not see.
			klog.FromContext(ctx).Error(err, "Preparing subPath failed",
				"pod", klog.KObj(pod), "container", spec.Container, "volume", sub.Volume)
			return files, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q", sub.Volume, spec.Container)
		}
		files.SubPaths[index] = path
	}
	if m.cfg.NoFiles {
		return files, nil
	}
	if spec.Hosts != nil {
		if err := writeHosts(files.EtcHosts, spec.Hosts); err != nil {
			return files, fmt.Errorf("writing the Pod's hosts file: %w", err)
		}
	}
	if spec.TerminationLog { // any user may write to it
		if err := writeFile(files.TerminationLog, nil, 0o666); err != nil {
			return files, fmt.Errorf("making the termination log: %w", err)
		}
		if spec.Attempt >= 3 { // nobody reads that of three attempts ago any more
			_ = os.Remove(m.TerminationLog(pod.UID, spec.Container, spec.Attempt-3))
		}
	}
	return files, nil
}

// TerminationLog is the file with the container's termination message.
func (m *Manager) TerminationLog(uid types.UID, container string, attempt uint32) string {
	return filepath.Join(m.podDir(uid), "containers", container, strconv.FormatUint(uint64(attempt), 10))
}

// writeHosts leaves a file alone that is right already, and never replaces it by another one:
// running containers have it mounted.
func writeHosts(path string, h *HostsFile) error {
	var node []byte
	if h.NodeFile != "" {
		var err error
		if node, err = os.ReadFile(h.NodeFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reading the node's hosts file: %w", err)
		}
	}
	content := slices.Concat([]byte(h.Header), node, []byte(h.Entries))
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return nil
	}
	return writeFile(path, content, 0o644)
}

func writeFile(path string, content []byte, perm os.FileMode) error {
	err := os.MkdirAll(filepath.Dir(path), 0o750)
	if err == nil {
		err = os.WriteFile(path, content, perm)
	}
	if err == nil {
		err = os.Chmod(path, perm) // independent of the umask
	}
	return err
}
