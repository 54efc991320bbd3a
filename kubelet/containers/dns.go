package containers

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/kubelet/util/format"
	"k8s.io/utils/ptr"
)

// Limits of resolv.conf, the same that the API server holds dnsConfig to.
const (
	maxNameservers     = 3
	maxSearchPaths     = 32
	maxSearchListChars = 2048
)

// DNS renders the resolv.conf of the Pod. The warnings are Events of reason DNSConfigForming or
// MissingClusterDNS.
func DNS(pod *v1.Pod, node Node) (*runtimeapi.DNSConfig, []Warning) {
	var warnings []Warning
	dns, host := &runtimeapi.DNSConfig{}, node.Resolver.HostDNS()
	switch policy := dnsPolicy(pod); {
	case policy == v1.DNSNone:
	case policy == v1.DNSClusterFirst && len(node.ClusterDNS) > 0:
		dns.Servers = lo.Map(node.ClusterDNS, func(ip netip.Addr, _ int) string { return ip.String() })
		if domain := node.ClusterDomain; domain != "" {
			dns.Searches = []string{pod.Namespace + ".svc." + domain, "svc." + domain, domain}
		}
		dns.Searches = lo.Uniq(append(dns.Searches, host.GetSearches()...))
		dns.Options = []string{"ndots:5"}
	default:
		if policy == v1.DNSClusterFirst {
			warnings = append(warnings, Warning{"MissingClusterDNS", fmt.Sprintf(
				"pod: %q. kubelet does not have ClusterDNS IP configured and cannot create Pod using %q policy. "+
					"Falling back to %q policy.",
				format.Pod(pod), v1.DNSClusterFirst, v1.DNSDefault)})
		}
		dns.Servers, dns.Searches = slices.Clone(host.GetServers()), slices.Clone(host.GetSearches())
		dns.Options = slices.Clone(host.GetOptions())
		if len(host.Loopback) > 0 && pod.Spec.HostNetwork {
			dns.Servers = slices.Clone(host.Loopback)
		} else if len(host.Loopback) > 0 {
			warnings = append(warnings, Warning{"DNSConfigForming", fmt.Sprintf(
				"The node's /etc/resolv.conf has name servers on its loopback only (%s), which this Pod cannot reach: "+
					"it gets none. Name another server there, or in the Pod's dnsConfig.",
				strings.Join(host.Loopback, ", "))})
			// containerd replaces an empty config by a copy of the host's file.
			dns.Options = append(dns.Options, "ndots:1")
		}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		dns.Servers = lo.Uniq(append(dns.Servers, c.Nameservers...))
		dns.Searches = lo.Uniq(append(dns.Searches, c.Searches...))
		dns.Options = mergeOptions(dns.Options, c.Options)
	}
	return dns, append(warnings, fitDNS(dns)...)
}

// Warning is an Event about a Pod that runs nevertheless.
type Warning struct{ Reason, Message string }

// dnsPolicy is the effective policy: ClusterFirst means Default on the host's network.
func dnsPolicy(pod *v1.Pod) v1.DNSPolicy {
	switch policy := pod.Spec.DNSPolicy; {
	case policy == v1.DNSNone || policy == v1.DNSDefault:
		return policy
	case policy == v1.DNSClusterFirst && pod.Spec.HostNetwork:
		return v1.DNSDefault
	}
	return v1.DNSClusterFirst
}

// mergeOptions lets later options replace earlier ones of the same name, in place.
func mergeOptions(options []string, more []v1.PodDNSConfigOption) []string {
	for _, o := range more {
		rendered := o.Name
		if value := ptr.Deref(o.Value, ""); value != "" {
			rendered += ":" + value
		}
		same := func(s string) bool { name, _, _ := strings.Cut(s, ":"); return name == o.Name }
		if i := slices.IndexFunc(options, same); i >= 0 {
			options[i] = rendered
		} else {
			options = append(options, rendered)
		}
	}
	return options
}

// fitDNS cuts the config to the limits of resolvers: glibc 2.28 aborts on a search path of more
// than 255 characters.
func fitDNS(dns *runtimeapi.DNSConfig) []Warning {
	var warnings []Warning
	if len(dns.Servers) > maxNameservers {
		dns.Servers = dns.Servers[:maxNameservers]
		warnings = append(warnings, Warning{"DNSConfigForming", "Nameserver limits were exceeded, " +
			"some nameservers have been omitted, the applied nameserver line is: " + strings.Join(dns.Servers, " ")})
	}
	fit := dns.Searches[:min(len(dns.Searches), maxSearchPaths)]
	fit = lo.Filter(fit, func(s string, _ int) bool { return len(s) <= utilvalidation.DNS1123SubdomainMaxLength })
	for len(strings.Join(fit, " ")) > maxSearchListChars {
		fit = fit[:len(fit)-1]
	}
	if len(fit) < len(dns.Searches) {
		warnings = append(warnings, Warning{"DNSConfigForming", "Search Line limits were exceeded, " +
			"some search paths have been omitted, the applied search line is: " + strings.Join(fit, " ")})
	}
	dns.Searches = fit
	return warnings
}
