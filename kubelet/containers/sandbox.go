package containers

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"path/filepath"
	"strconv"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/node/util/sysctl"
	resourcehelper "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	runtimeutil "k8s.io/kubernetes/pkg/kubelet/kuberuntime/util"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

// SandboxOptions are the inputs of a sandbox besides the Pod.
type SandboxOptions struct {
	Node         Node
	Attempt      uint32
	CgroupParent string
}

// Sandbox renders the sandbox of the Pod. It has no port mappings: the service proxy makes host
// ports, since CNI's portmap plugin would execute programs of the host.
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
			Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: opts.Attempt,
		},
		Hostname:     hostname,
		LogDirectory: PodLogsDir(opts.Node.PodLogsDir, pod),
		DnsConfig:    dns,
		Labels:       lo.Assign(pod.Labels, podLabels(pod, opts.Node.Owner)),
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
		Privileged:       kubecontainer.HasPrivilegedContainer(pod),
		// The pause process needs no more than the default profile.
		Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}
	// The resources are hints for runtimes that size a virtual machine by them. The Pod's cgroup
	// has the limits that count.
	without := resourcehelper.PodResourcesOptions{ExcludeOverhead: true}
	requests, limits := resourcehelper.PodRequests(pod, without), resourcehelper.PodLimits(pod, without)
	linux := &runtimeapi.LinuxPodSandboxConfig{
		CgroupParent:    opts.CgroupParent,
		SecurityContext: sc,
		Sysctls:         map[string]string{},
		Resources:       linuxResources(opts.Node, requests, limits),
		Overhead:        &runtimeapi.LinuxContainerResources{},
	}
	if pod.Spec.Overhead != nil {
		linux.Overhead = linuxResources(opts.Node, pod.Spec.Overhead, pod.Spec.Overhead)
	}
	psc := ptr.Deref(pod.Spec.SecurityContext, v1.PodSecurityContext{})
	for _, s := range psc.Sysctls {
		linux.Sysctls[sysctl.NormalizeName(s.Name)] = s.Value
	}
	sc.RunAsUser, sc.RunAsGroup = int64Value(psc.RunAsUser), int64Value(psc.RunAsGroup)
	sc.SupplementalGroups = supplementalGroups(psc)
	sc.SelinuxOptions = selinuxOptions(psc.SELinuxOptions)
	sc.SupplementalGroupsPolicy, err = groupsPolicy(psc)
	return linux, err
}

func namespaceOptions(pod *v1.Pod) (*runtimeapi.NamespaceOption, error) {
	if !ptr.Deref(pod.Spec.HostUsers, true) {
		// To ignore the field would run the Pod with more privileges than it asked for.
		return nil, errors.New("rendering sandbox: hostUsers: false is not supported yet; remove it from the Pod")
	}
	return &runtimeapi.NamespaceOption{
		Network: runtimeutil.NetworkNamespaceForPod(pod),
		Ipc:     runtimeutil.IpcNamespaceForPod(pod), Pid: runtimeutil.PidNamespaceForPod(pod),
	}, nil
}

// Hash of the fields of a container whose change needs a restart: the name and the image. It is
// compared with cri.AnnotationHash. Resources change in place.
func Hash(c *v1.Container) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%q %q", c.Name, c.Image)
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}

// PodLogsDir is the directory of a Pod's logs: PodLogsDir/NAMESPACE_NAME_UID.
func PodLogsDir(base string, pod *v1.Pod) string {
	return filepath.Join(base, pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// relativeLogPath is the path of one attempt's log below PodLogsDir.
func relativeLogPath(container string, attempt uint32) string {
	return filepath.Join(container, strconv.FormatUint(uint64(attempt), 10)+".log")
}

// podLabels identify the Pod and its owner.
func podLabels(pod *v1.Pod, owner string) map[string]string {
	return lo.Assign(cri.OwnedBy(owner), map[string]string{
		cri.LabelPodName: pod.Name, cri.LabelPodNamespace: pod.Namespace, cri.LabelPodUID: string(pod.UID),
	})
}

func containerAnnotations(pod *v1.Pod, c *v1.Container, attempt uint32) (map[string]string, error) {
	a := map[string]string{
		cri.AnnotationHash:          Hash(c),
		cri.AnnotationRestartCount:  strconv.FormatUint(uint64(attempt), 10),
		cri.AnnotationMessagePath:   c.TerminationMessagePath,
		cri.AnnotationMessagePolicy: string(c.TerminationMessagePolicy),
	}
	for key, value := range map[string]any{
		cri.AnnotationResources:        cri.CreatedResources{Container: c.Resources, Pod: pod.Spec.Resources},
		cri.AnnotationDeletionGrace:    pod.DeletionGracePeriodSeconds,
		cri.AnnotationTerminationGrace: pod.Spec.TerminationGracePeriodSeconds,
		cri.AnnotationPreStop:          ptr.Deref(c.Lifecycle, v1.Lifecycle{}).PreStop,
		cri.AnnotationPorts:            lo.Ternary(len(c.Ports) > 0, c.Ports, nil),
	} {
		raw, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("encoding annotation %s of container %s: %w", key, c.Name, err)
		}
		if string(raw) != "null" { // not set
			a[key] = string(raw)
		}
	}
	return a, nil
}
