package proxy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"
)

// place is this Node: its name, and its zone, which may be unknown.
type place struct{ node, zone string }

// observeService turns a Service and its EndpointSlices into a value. A nil Service, or one that no
// proxy serves, has no ports.
func observeService(name string, svc *corev1.Service, parts []*discoveryv1.EndpointSlice, here place) Service {
	out := Service{Name: name}
	if svc == nil || svc.Spec.Type == corev1.ServiceTypeExternalName {
		return out
	}
	clusterIP := firstOf(append([]string{svc.Spec.ClusterIP}, svc.Spec.ClusterIPs...))
	if !clusterIP.IsValid() { // headless, not yet allocated, or of another family
		return out
	}
	local := svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	if local && svc.Spec.Type == corev1.ServiceTypeLoadBalancer {
		out.HealthCheckNodePort = uint16(svc.Spec.HealthCheckNodePort)
	}
	for _, p := range svc.Spec.Ports {
		port := ServicePort{
			ClusterIP:       clusterIP,
			Protocol:        protocol(p.Protocol),
			Port:            uint16(p.Port),
			NodePort:        uint16(p.NodePort),
			ExternalIPs:     addrs(svc.Spec.ExternalIPs),
			LoadBalancerIPs: ingress(svc),
			SourceRanges:    prefixes(svc.Spec.LoadBalancerSourceRanges),
			InternalLocal:   ptr.Deref(svc.Spec.InternalTrafficPolicy, "") == corev1.ServiceInternalTrafficPolicyLocal,
			ExternalLocal:   local,
			Affinity:        affinity(svc),
			Endpoints:       observeEndpoints(p, parts, here),
		}
		out.Ports = append(out.Ports, port)
	}
	return out
}

func observeEndpoints(port corev1.ServicePort, parts []*discoveryv1.EndpointSlice, here place) []Endpoint {
	var out []Endpoint
	at := map[netip.AddrPort]int{}
	for _, s := range parts {
		number, ok := slicePort(port, s)
		if !ok || s.AddressType != discoveryv1.AddressTypeIPv4 {
			continue
		}
		for _, e := range s.Endpoints {
			addr := firstOf(e.Addresses)
			if !addr.IsValid() {
				continue
			}
			c, hints := e.Conditions, ptr.Deref(e.Hints, discoveryv1.EndpointHints{})
			ep := Endpoint{
				Addr:        netip.AddrPortFrom(addr, number),
				Local:       ptr.Deref(e.NodeName, "") == here.node,
				Ready:       ptr.Deref(c.Ready, true),
				Serving:     ptr.Deref(c.Serving, ptr.Deref(c.Ready, true)),
				Terminating: ptr.Deref(c.Terminating, false),
				Hints: [...]Hint{
					observeHint(hints.ForNodes, discoveryv1.ForNode{Name: here.node}),
					observeHint(hints.ForZones, discoveryv1.ForZone{Name: here.zone}),
				},
			}
			// While the controller moves an endpoint from one slice to another it may be in both.
			if i, twice := at[ep.Addr]; !twice {
				at[ep.Addr] = len(out)
				out = append(out, ep)
			} else if ep.Ready || ep.Serving && !out[i].Ready {
				out[i] = ep
			}
		}
	}
	return out
}

// observeHint finds us among those that an endpoint is meant for.
func observeHint[T comparable](list []T, us T) Hint {
	switch {
	case len(list) == 0:
		return NoHint
	case slices.Contains(list, us):
		return ForUs
	}
	return ForOthers
}

// slicePort finds the number that a Service's port has in a slice; they go by name.
func slicePort(port corev1.ServicePort, s *discoveryv1.EndpointSlice) (uint16, bool) {
	for _, p := range s.Ports {
		same := ptr.Deref(p.Name, "") == port.Name && protocol(ptr.Deref(p.Protocol, "")) == protocol(port.Protocol)
		if same && p.Port != nil {
			return uint16(*p.Port), true
		}
	}
	return 0, false
}

func affinity(svc *corev1.Service) uint32 {
	if svc.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		return uint32(*c.ClientIP.TimeoutSeconds)
	}
	return uint32(corev1.DefaultClientIPServiceAffinitySeconds)
}

// ingress lists the load balancer's addresses whose traffic arrives here with the destination
// unchanged; with ipMode Proxy it does not (KEP-1860).
func ingress(svc *corev1.Service) []netip.Addr {
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	var ips []string
	for _, i := range svc.Status.LoadBalancer.Ingress {
		if ptr.Deref(i.IPMode, corev1.LoadBalancerIPModeVIP) == corev1.LoadBalancerIPModeVIP {
			ips = append(ips, i.IP)
		}
	}
	return addrs(ips)
}

// observePod finds the host ports of one of this node's Pods.
func observePod(name string, pod *corev1.Pod) HostPortPod {
	out := HostPortPod{Name: name}
	if pod == nil || pod.Spec.HostNetwork {
		return out
	}
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return out
	}
	out.Addr = firstOf([]string{pod.Status.PodIP})
	for _, p := range pod.Status.PodIPs {
		out.Addr = cmp.Or(out.Addr, firstOf([]string{p.IP}))
	}
	if !out.Addr.IsValid() {
		return out
	}
	containers := pod.Spec.Containers
	for _, c := range pod.Spec.InitContainers {
		if ptr.Deref(c.RestartPolicy, "") == corev1.ContainerRestartPolicyAlways {
			containers = append(slices.Clip(containers), c)
		}
	}
	for _, c := range containers {
		for _, p := range c.Ports {
			if p.HostPort == 0 {
				continue
			}
			hostIP := netip.IPv4Unspecified()
			if p.HostIP != "" {
				hostIP, _ = netip.ParseAddr(p.HostIP)
			}
			if hostIP.Is4() {
				out.Ports = append(out.Ports, HostPortMapping{
					hostIP, protocol(p.Protocol), uint16(p.HostPort), uint16(p.ContainerPort),
				})
			}
		}
	}
	return out
}

func protocol(p corev1.Protocol) Protocol {
	switch p {
	case corev1.ProtocolUDP:
		return UDP
	case corev1.ProtocolSCTP:
		return SCTP
	}
	return TCP
}

// firstOf is the first IPv4 address of a list.
func firstOf(list []string) netip.Addr { return append(addrs(list), netip.Addr{})[0] }

// addrs parses the IPv4 addresses of a list. The API server has validated them; what does not parse
// ("None", "", IPv6) is not for us.
func addrs(list []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil && a.Unmap().Is4() {
			out = append(out, a.Unmap())
		}
	}
	return out
}

func prefixes(list []string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		if p, err := netip.ParsePrefix(strings.TrimSpace(s)); err == nil && p.Addr().Is4() {
			out = append(out, p)
		}
	}
	return out
}
