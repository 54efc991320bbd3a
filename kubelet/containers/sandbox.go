package containers

import (
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/node/util/sysctl"
	resourcehelper "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// SandboxOptions is what, besides the Pod, a sandbox depends on.
type SandboxOptions struct {
	Node         Node
	Attempt      uint32
	CgroupParent string
}

// Sandbox renders the sandbox of the Pod.
//
// It carries no port mappings: host ports are made by the service proxy, because
// CNI's portmap plugin would execute programs of the host.
func Sandbox(pod *v1.Pod, opts SandboxOptions) (*runtimeapi.PodSandboxConfig, error) {
	dns, _ := DNS(pod, opts.Node)
	hostname, err := kernelHostname(pod, opts.Node.ClusterDomain)
	if err != nil {
		return nil, err
	}
	linux, err := sandboxLinux(pod, opts)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{
			Name:      pod.Name,
			Namespace: pod.Namespace,
			Uid:       string(pod.UID),
			Attempt:   opts.Attempt,
		},
		Hostname:     hostname,
		LogDirectory: PodLogsDir(opts.Node.PodLogsDir, pod),
		DnsConfig:    dns,
		Labels:       sandboxLabels(pod, opts.Node.Owner),
		Annotations:  maps.Clone(pod.Annotations),
		Linux:        linux,
	}, nil
}

func sandboxLinux(pod *v1.Pod, opts SandboxOptions) (*runtimeapi.LinuxPodSandboxConfig, error) {
	namespaces, err := namespaceOptions(pod)
	if err != nil {
		return nil, err
	}
	sc := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces,
		Privileged:       hasPrivileged(pod),
		// The pause process needs no more than the default profile, whatever the
		// containers ask for.
		Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}
	linux := &runtimeapi.LinuxPodSandboxConfig{
		CgroupParent:    opts.CgroupParent,
		SecurityContext: sc,
		Sysctls:         map[string]string{},
		Resources:       sandboxResources(opts.Node, pod),
		Overhead:        overheadResources(opts.Node, pod),
	}
	psc := pod.Spec.SecurityContext
	if psc == nil {
		return linux, nil
	}
	for _, s := range psc.Sysctls {
		linux.Sysctls[sysctl.NormalizeName(s.Name)] = s.Value
	}
	sc.RunAsUser = int64Value(psc.RunAsUser)
	sc.RunAsGroup = int64Value(psc.RunAsGroup)
	sc.SupplementalGroups = supplementalGroups(psc)
	sc.SelinuxOptions = selinuxOptions(psc.SELinuxOptions)
	sc.SupplementalGroupsPolicy, err = groupsPolicy(psc)
	return linux, err
}

// sandboxResources are hints for runtimes that size a virtual machine by them;
// the limits that count are those of the Pod's cgroup.
func sandboxResources(node Node, pod *v1.Pod) *runtimeapi.LinuxContainerResources {
	opts := resourcehelper.PodResourcesOptions{ExcludeOverhead: true}
	return linuxResources(node, resourcehelper.PodRequests(pod, opts), resourcehelper.PodLimits(pod, opts))
}

func overheadResources(node Node, pod *v1.Pod) *runtimeapi.LinuxContainerResources {
	if pod.Spec.Overhead == nil {
		return &runtimeapi.LinuxContainerResources{}
	}
	return linuxResources(node, pod.Spec.Overhead, pod.Spec.Overhead)
}

func namespaceOptions(pod *v1.Pod) (*runtimeapi.NamespaceOption, error) {
	if pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers {
		// To ignore the field would run the Pod with more privileges than it asked for.
		return nil, fmt.Errorf("rendering sandbox: hostUsers: false is not supported yet; remove it from the Pod")
	}
	opts := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	if pod.Spec.HostNetwork {
		opts.Network = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		opts.Ipc = runtimeapi.NamespaceMode_NODE
	}
	switch share := pod.Spec.ShareProcessNamespace; {
	case pod.Spec.HostPID:
		opts.Pid = runtimeapi.NamespaceMode_NODE
	case share != nil && *share:
		opts.Pid = runtimeapi.NamespaceMode_POD
	}
	return opts, nil
}

func hasPrivileged(pod *v1.Pod) bool {
	privileged := func(c v1.Container) bool {
		sc := c.SecurityContext
		return sc != nil && sc.Privileged != nil && *sc.Privileged
	}
	return slices.ContainsFunc(pod.Spec.Containers, privileged) ||
		slices.ContainsFunc(pod.Spec.InitContainers, privileged)
}
