package containers

import (
	"fmt"
	"path"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/volumes"
)

// wantsHosts reports whether a container gets the Pod's /etc/hosts: unless it mounts its own, and
// as soon as there is an address to write into it.
func wantsHosts(in Input) bool {
	own := func(m v1.VolumeMount) bool { return m.MountPath == hostsPath }
	return !slices.ContainsFunc(in.Container.VolumeMounts, own) && (len(in.PodIPs) > 0 || in.Pod.Spec.HostNetwork)
}

func subPaths(in Input) (map[int]volumes.SubPath, error) {
	out := map[int]volumes.SubPath{}
	for i, m := range in.Container.VolumeMounts {
		sub, err := subPath(m, in.Env)
		if err != nil {
			return nil, err
		}
		if sub != "" && !in.Volumes[m.Name].Image { // the runtime finds the path in an image
			out[i] = volumes.SubPath{Volume: m.Name, Path: sub}
		}
	}
	return out, nil
}

// subPath is the path inside its volume that is mounted, "" for the volume itself.
func subPath(m v1.VolumeMount, env []*runtimeapi.KeyValue) (string, error) {
	sub := m.SubPath
	if m.SubPathExpr != "" {
		var err error
		// Fails on variables that are missing or empty: they would select the whole volume.
		if sub, err = kubecontainer.ExpandContainerVolumeMounts(m, envVars(env)); err != nil {
			return "", err
		}
	}
	if path.IsAbs(sub) {
		return "", fmt.Errorf("error SubPath `%s` must not be an absolute path", sub)
	}
	if slices.Contains(strings.Split(sub, "/"), "..") {
		return "", fmt.Errorf("unable to provision SubPath `%s`: must not contain '..'", sub)
	}
	return sub, nil
}

// mounts renders the container's volumes in their order, then /etc/hosts and the termination log.
func mounts(in Input) ([]*runtimeapi.Mount, error) {
	var out []*runtimeapi.Mount
	for i, m := range in.Container.VolumeMounts {
		vol, ok := in.Volumes[m.Name]
		if !ok || vol.Device {
			return nil, fmt.Errorf("cannot find volume %q to mount into container %q", m.Name, in.Container.Name)
		}
		rendered, err := volumeMount(m, vol, in.Node.RecursiveReadOnly.Has(in.RuntimeHandler))
		if err != nil {
			return nil, err
		}
		switch {
		case vol.Image:
			if err := imageMount(rendered, in, m); err != nil {
				return nil, err
			}
		case m.SubPath != "" || m.SubPathExpr != "":
			if rendered.HostPath = in.Files.SubPaths[i]; rendered.HostPath == "" {
				// Never fall back to the whole volume.
				return nil, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q",
					m.Name, in.Container.Name)
			}
		}
		out = append(out, rendered)
	}
	if p := in.Files.EtcHosts; p != "" && wantsHosts(in) {
		out = append(out, &runtimeapi.Mount{ContainerPath: hostsPath, HostPath: p, SelinuxRelabel: true})
	}
	if p := in.Files.TerminationLog; p != "" && in.Container.TerminationMessagePath != "" {
		file := absolute(in.Container.TerminationMessagePath)
		out = append(out, &runtimeapi.Mount{ContainerPath: file, HostPath: p, SelinuxRelabel: true})
	}
	return out, nil
}

// devices renders the container's volumeDevices.
func devices(in Input) ([]*runtimeapi.Device, error) {
	var out []*runtimeapi.Device
	for _, d := range in.Container.VolumeDevices {
		vol := in.Volumes[d.Name]
		switch {
		case !path.IsAbs(d.DevicePath):
			return nil, fmt.Errorf("error DevicePath `%s` must be an absolute path", d.DevicePath)
		case !vol.Device:
			return nil, fmt.Errorf("cannot find volume %q to pass into container %q", d.Name, in.Container.Name)
		}
		permissions := "mrw"
		if vol.ReadOnly {
			permissions = "r"
		}
		out = append(out, &runtimeapi.Device{ContainerPath: d.DevicePath, HostPath: vol.HostPath, Permissions: permissions})
	}
	return out, nil
}

// imageMount completes the mount of an image. The runtime finds the image by its ID.
func imageMount(rendered *runtimeapi.Mount, in Input, m v1.VolumeMount) error {
	ref := in.VolumeImages[m.Name]
	if ref == "" {
		return fmt.Errorf("cannot find the image of volume %q to mount into container %q", m.Name, in.Container.Name)
	}
	rendered.Image = &runtimeapi.ImageSpec{
		Image: ref, RuntimeHandler: in.RuntimeHandler, Annotations: in.Pod.Annotations,
	}
	for _, v := range in.Pod.Spec.Volumes {
		if v.Name == m.Name && v.Image != nil {
			rendered.Image.UserSpecifiedImage = v.Image.Reference
		}
	}
	var err error
	rendered.ImageSubPath, err = subPath(m, in.Env)
	return err
}

func volumeMount(m v1.VolumeMount, vol volumes.Mounted, supportsRRO bool) (*runtimeapi.Mount, error) {
	mode := ptr.Deref(m.MountPropagation, v1.MountPropagationNone)
	propagation, ok := propagations[mode]
	if !ok {
		return nil, fmt.Errorf("invalid MountPropagation mode: %q", mode)
	}
	recursive, err := cri.RecursiveReadOnly(m, supportsRRO)
	if err != nil {
		return nil, fmt.Errorf("failed to resolve recursive read-only mode: %w", err)
	}
	return &runtimeapi.Mount{
		ContainerPath: absolute(m.MountPath), HostPath: vol.HostPath,
		Readonly: m.ReadOnly || vol.ReadOnly, RecursiveReadOnly: recursive,
		SelinuxRelabel: vol.SELinuxRelabel, Propagation: propagation,
	}, nil
}

var propagations = map[v1.MountPropagationMode]runtimeapi.MountPropagation{
	v1.MountPropagationNone:            runtimeapi.MountPropagation_PROPAGATION_PRIVATE,
	v1.MountPropagationHostToContainer: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
	v1.MountPropagationBidirectional:   runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL,
}

func absolute(p string) string {
	if path.IsAbs(p) {
		return p
	}
	return "/" + p
}
