package containers

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"

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
	if psc := pod.Spec.SecurityContext; psc != nil {
		out.SupplementalGroups = supplementalGroups(psc)
		out.SupplementalGroupsPolicy, err = groupsPolicy(psc)
	}
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
	default:
		if errs := validation.IsValidUserID(*uid); len(errs) > 0 {
			return fmt.Errorf("container has runAsNonRoot and image has an invalid user id (%d). "+
				"(Must be 1-(%d)): %s %s", *uid, math.MaxInt32, strings.Join(errs, "; "), where)
		}
	}
	return nil
}

func seccompProfile(dir string, pod *v1.Pod, c *v1.Container) (*runtimeapi.SecurityProfile, error) {
	var p *v1.SeccompProfile
	if psc := pod.Spec.SecurityContext; psc != nil {
		p = psc.SeccompProfile
	}
	if c.SecurityContext != nil && c.SecurityContext.SeccompProfile != nil {
		p = c.SecurityContext.SeccompProfile
	}
	switch {
	case p == nil || p.Type == v1.SeccompProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	case p.Type == v1.SeccompProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case p.Type == v1.SeccompProfileTypeLocalhost && p.LocalhostProfile != nil && *p.LocalhostProfile != "":
		return &runtimeapi.SecurityProfile{
			ProfileType:  runtimeapi.SecurityProfile_Localhost,
			LocalhostRef: filepath.Join(dir, *p.LocalhostProfile),
		}, nil
	case p.Type == v1.SeccompProfileTypeLocalhost:
		//nolint:revive,staticcheck // upstream's text
		return nil, errors.New("localhostProfile must be set if seccompProfile type is Localhost.")
	}
	return nil, fmt.Errorf("unknown seccomp profile type: %q", p.Type)
}

func apparmorProfile(pod *v1.Pod, c *v1.Container) (*runtimeapi.SecurityProfile, error) {
	p := apparmor.GetProfile(pod, c)
	switch {
	case p == nil:
		return nil, nil
	case p.Type == v1.AppArmorProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case p.Type == v1.AppArmorProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	case p.Type == v1.AppArmorProfileTypeLocalhost && p.LocalhostProfile != nil:
		return &runtimeapi.SecurityProfile{
			ProfileType:  runtimeapi.SecurityProfile_Localhost,
			LocalhostRef: *p.LocalhostProfile,
		}, nil
	case p.Type == v1.AppArmorProfileTypeLocalhost:
		return nil, errors.New("missing localhost apparmor profile name")
	}
	return nil, fmt.Errorf("unknown apparmor profile type: %q", p.Type)
}

func capabilities(c *v1.Capabilities) *runtimeapi.Capability {
	if c == nil {
		return nil
	}
	out := &runtimeapi.Capability{}
	for _, name := range c.Add {
		out.AddCapabilities = append(out.AddCapabilities, string(name))
	}
	for _, name := range c.Drop {
		out.DropCapabilities = append(out.DropCapabilities, string(name))
	}
	return out
}

// supplementalGroups are fsGroup and the groups of the Pod. The runtime adds the image's, if the
// policy says so.
func supplementalGroups(psc *v1.PodSecurityContext) []int64 {
	var groups []int64
	if psc.FSGroup != nil {
		groups = append(groups, *psc.FSGroup)
	}
	return append(groups, psc.SupplementalGroups...)
}

func groupsPolicy(psc *v1.PodSecurityContext) (runtimeapi.SupplementalGroupsPolicy, error) {
	if psc.SupplementalGroupsPolicy == nil {
		return runtimeapi.SupplementalGroupsPolicy_Merge, nil
	}
	v, ok := runtimeapi.SupplementalGroupsPolicy_value[string(*psc.SupplementalGroupsPolicy)]
	if !ok {
		return 0, fmt.Errorf("unsupported supplementalGroupsPolicy: %s", *psc.SupplementalGroupsPolicy)
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
