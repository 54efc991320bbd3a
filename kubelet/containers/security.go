package containers

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/kubelet/util/format"
	"k8s.io/kubernetes/pkg/security/apparmor"
	"k8s.io/kubernetes/pkg/securitycontext"
	"k8s.io/utils/ptr"
)

// securityContext merges the Pod's security context with the container's and renders it.
func securityContext(in Input) (*runtimeapi.LinuxContainerSecurityContext, error) {
	pod, c := in.Pod, in.Container
	sc := securitycontext.DetermineEffectiveSecurityContext(pod, c)
	if err := verifyNonRoot(in, sc); err != nil {
		return nil, err
	}
	namespaces, err := namespaceOptions(pod)
	if err != nil {
		return nil, err
	}
	if in.TargetID != "" && namespaces.Pid == runtimeapi.NamespaceMode_CONTAINER {
		namespaces.Pid = runtimeapi.NamespaceMode_TARGET
		namespaces.TargetId = in.TargetID
	}
	out := &runtimeapi.LinuxContainerSecurityContext{
		Capabilities:     capabilities(sc.Capabilities),
		Privileged:       ptr.Deref(sc.Privileged, false),
		NamespaceOptions: namespaces,
		SelinuxOptions:   selinuxOptions(sc.SELinuxOptions),
		RunAsUser:        int64Value(sc.RunAsUser),
		RunAsGroup:       int64Value(sc.RunAsGroup),
		ReadonlyRootfs:   ptr.Deref(sc.ReadOnlyRootFilesystem, false),
		NoNewPrivs:       securitycontext.AddNoNewPrivileges(sc),
		MaskedPaths:      securitycontext.ConvertToRuntimeMaskedPaths(sc.ProcMount),
		ReadonlyPaths:    securitycontext.ConvertToRuntimeReadonlyPaths(sc.ProcMount),
	}
	if out.RunAsUser == nil {
		out.RunAsUser = int64Value(in.ImageUser.UID)
		out.RunAsUsername = in.ImageUser.Name
	}
	if out.Seccomp, err = seccompProfile(in.Node.SeccompDir, pod, c); err != nil {
		return nil, err
	}
	if out.Apparmor, err = apparmorProfile(pod, c); err != nil {
		return nil, err
	}
	psc := ptr.Deref(pod.Spec.SecurityContext, v1.PodSecurityContext{})
	out.SupplementalGroups = supplementalGroups(psc)
	out.SupplementalGroupsPolicy, err = groupsPolicy(psc)
	return out, err
}

// verifyNonRoot checks runAsNonRoot against the user that the container would run as. It must be a
// number: the image's passwd file may give a name any number.
func verifyNonRoot(in Input, sc *v1.SecurityContext) error {
	if !ptr.Deref(sc.RunAsNonRoot, false) {
		return nil
	}
	where := fmt.Sprintf("(pod: %q, container: %s)", format.Pod(in.Pod), in.Container.Name)
	uid := in.ImageUser.UID
	switch {
	case sc.RunAsUser != nil && *sc.RunAsUser == 0:
		return fmt.Errorf("container's runAsUser breaks non-root policy %s", where)
	case sc.RunAsUser != nil:
		return nil
	case uid == nil && in.ImageUser.Name != "":
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), "+
			"cannot verify user is non-root %s", in.ImageUser.Name, where)
	case uid == nil || *uid == 0: // an image without a user runs as root
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
	}
	if errs := validation.IsValidUserID(*uid); len(errs) > 0 {
		return fmt.Errorf("container has runAsNonRoot and image has an invalid user id (%d). "+
			"(Must be 1-(%d)): %s %s", *uid, math.MaxInt32, strings.Join(errs, "; "), where)
	}
	return nil
}

func seccompProfile(dir string, pod *v1.Pod, c *v1.Container) (*runtimeapi.SecurityProfile, error) {
	p := cmp.Or(ptr.Deref(c.SecurityContext, v1.SecurityContext{}).SeccompProfile,
		ptr.Deref(pod.Spec.SecurityContext, v1.PodSecurityContext{}).SeccompProfile,
		&v1.SeccompProfile{Type: v1.SeccompProfileTypeUnconfined})
	file := ptr.Deref(p.LocalhostProfile, "")
	if p.Type == v1.SeccompProfileTypeLocalhost && file == "" {
		//nolint:revive,staticcheck // upstream's text
		return nil, errors.New("localhostProfile must be set if seccompProfile type is Localhost.")
	}
	return securityProfile("seccomp", string(p.Type), filepath.Join(dir, file))
}

func apparmorProfile(pod *v1.Pod, c *v1.Container) (*runtimeapi.SecurityProfile, error) {
	p := apparmor.GetProfile(pod, c)
	if p == nil {
		return nil, nil
	}
	if p.Type == v1.AppArmorProfileTypeLocalhost && p.LocalhostProfile == nil {
		return nil, errors.New("missing localhost apparmor profile name")
	}
	return securityProfile("apparmor", string(p.Type), ptr.Deref(p.LocalhostProfile, ""))
}

// securityProfile converts a profile; localhost is read only for the type Localhost.
func securityProfile(of, kind, localhost string) (*runtimeapi.SecurityProfile, error) {
	value, ok := runtimeapi.SecurityProfile_ProfileType_value[kind]
	if !ok {
		return nil, fmt.Errorf("unknown %s profile type: %q", of, kind)
	}
	out := &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_ProfileType(value)}
	if out.ProfileType == runtimeapi.SecurityProfile_Localhost {
		out.LocalhostRef = localhost
	}
	return out, nil
}

func capabilities(c *v1.Capabilities) *runtimeapi.Capability {
	if c == nil {
		return nil
	}
	name := func(c v1.Capability, _ int) string { return string(c) }
	return &runtimeapi.Capability{AddCapabilities: lo.Map(c.Add, name), DropCapabilities: lo.Map(c.Drop, name)}
}

// supplementalGroups are fsGroup and the groups of the Pod. The runtime adds the image's, if the
// policy says so.
func supplementalGroups(psc v1.PodSecurityContext) []int64 {
	if psc.FSGroup == nil {
		return psc.SupplementalGroups
	}
	return append([]int64{*psc.FSGroup}, psc.SupplementalGroups...)
}

func groupsPolicy(psc v1.PodSecurityContext) (runtimeapi.SupplementalGroupsPolicy, error) {
	policy := ptr.Deref(psc.SupplementalGroupsPolicy, v1.SupplementalGroupsPolicyMerge)
	v, ok := runtimeapi.SupplementalGroupsPolicy_value[string(policy)]
	if !ok {
		return 0, fmt.Errorf("unsupported supplementalGroupsPolicy: %s", policy)
	}
	return runtimeapi.SupplementalGroupsPolicy(v), nil
}

func selinuxOptions(o *v1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func int64Value(v *int64) *runtimeapi.Int64Value {
	if v == nil {
		return nil
	}
	return &runtimeapi.Int64Value{Value: *v}
}
