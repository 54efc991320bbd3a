package containers

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	kubeletutil "k8s.io/kubernetes/pkg/kubelet/util"

	"flyball.dev/kubelet/volumes"
)

const (
	// maxHostname is the longest DNS label.
	maxHostname = 63

	hostsPath              = "/etc/hosts"
	hostsHeader            = "# Kubernetes-managed hosts file.\n"
	hostsHeaderHostNetwork = "# Kubernetes-managed hosts file (host network).\n"
	hostsLocal             = "127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\n" +
		"fe00::0\tip6-mcastprefix\n" +
		"fe00::1\tip6-allnodes\n" +
		"fe00::2\tip6-allrouters\n"
)

// hostname returns the short name of the Pod and its domain, which is empty unless it has a
// subdomain.
func hostname(pod *v1.Pod, clusterDomain string) (name, domain string, err error) {
	if o := pod.Spec.HostnameOverride; o != nil {
		if msgs := validation.IsDNS1123Subdomain(*o); len(msgs) != 0 {
			return "", "", fmt.Errorf("pod HostnameOverride %q is not a valid DNS subdomain: %s",
				*o, strings.Join(msgs, ";"))
		}
		name, err = truncateHostname(*o)
		return name, "", err
	}
	for _, f := range [][2]string{{"Hostname", pod.Spec.Hostname}, {"Subdomain", pod.Spec.Subdomain}} {
		field, label := f[0], f[1]
		if msgs := validation.IsDNS1123Label(label); label != "" && len(msgs) != 0 {
			return "", "", fmt.Errorf("pod %s %q is not a valid DNS label: %s", field, label, strings.Join(msgs, ";"))
		}
	}
	if s := pod.Spec.Subdomain; s != "" {
		domain = fmt.Sprintf("%s.%s.svc.%s", s, pod.Namespace, clusterDomain)
	}
	name, err = truncateHostname(cmp.Or(pod.Spec.Hostname, pod.Name))
	return name, domain, err
}

func truncateHostname(name string) (string, error) {
	if len(name) <= maxHostname {
		return name, nil
	}
	short := strings.TrimRight(name[:maxHostname], "-.")
	if short == "" {
		return "", fmt.Errorf("rendering hostname: the first %d characters of %q have no letter or digit",
			maxHostname, name)
	}
	return short, nil
}

// kernelHostname is the hostname in the Pod's UTS namespace. A Pod on the host's network has the
// host's.
func kernelHostname(pod *v1.Pod, clusterDomain string) (string, error) {
	if pod.Spec.HostNetwork {
		return "", nil
	}
	name, domain, err := hostname(pod, clusterDomain)
	if err != nil {
		return "", err
	}
	return kubeletutil.GetNodenameForKernel(name, domain, pod.Spec.SetHostnameAsFQDN)
}

// hostsFile describes the Pod's /etc/hosts.
func hostsFile(pod *v1.Pod, podIPs []string, clusterDomain string) (*volumes.HostsFile, error) {
	aliases := hostAliases(pod.Spec.HostAliases)
	if pod.Spec.HostNetwork {
		return &volumes.HostsFile{Header: hostsHeaderHostNetwork, NodeFile: hostsPath, Entries: aliases}, nil
	}
	name, domain, err := hostname(pod, clusterDomain)
	if err != nil {
		return nil, err
	}
	if domain != "" {
		name += "." + domain + "\t" + name
	}
	own := lo.Map(podIPs, func(ip string, _ int) string { return ip + "\t" + name + "\n" })
	return &volumes.HostsFile{Header: hostsHeader, Entries: hostsLocal + strings.Join(own, "") + aliases}, nil
}

func hostAliases(aliases []v1.HostAlias) string {
	entries := lo.Map(aliases, func(a v1.HostAlias, _ int) string {
		return a.IP + "\t" + strings.Join(a.Hostnames, "\t") + "\n"
	})
	return lo.Ternary(len(aliases) > 0, "\n# Entries added by HostAliases.\n", "") + strings.Join(entries, "")
}
