package pods

import (
	"fmt"
	"net"
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"flyball.dev/test/e2e/internal/cluster"
)

func TestHostNetworkAndDNS(t *testing.T) {
	ns := cluster.Namespace(t)
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	spec := pod(container("hostname"))
	spec.HostNetwork = true
	has(t, cluster.Output(t, ns, "hostnetwork", spec), name)
	p := cluster.Await(t, ns, "hostnetwork", cluster.Phase(corev1.PodSucceeded))
	if p.Status.PodIP != p.Status.HostIP {
		t.Errorf("its address is %s, the node's is %s", p.Status.PodIP, p.Status.HostIP)
	}

	has(t, cluster.Output(t, ns, "clusterdns", pod(container("cat", "/etc/resolv.conf"))), "nameserver 10.43.0.10", "options ndots:5")
	spec = pod(container("cat", "/etc/resolv.conf", "/etc/hosts"))
	spec.DNSPolicy = corev1.DNSNone
	spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"192.0.2.53"}, Searches: []string{"example.com"}}
	spec.HostAliases = []corev1.HostAlias{{IP: "192.0.2.80", Hostnames: []string{"alias.example.com"}}}
	has(t, cluster.Output(t, ns, "owndns", spec), "nameserver 192.0.2.53", "search example.com", "192.0.2.80\talias.example.com")
}

// TestHostPort reaches a Pod through a port of its node.
func TestHostPort(t *testing.T) {
	ns := cluster.Namespace(t)
	c := container("serve", "http=:8080")
	c.Ports = []corev1.ContainerPort{{ContainerPort: 8080, HostPort: 18080}}
	cluster.Run(t, ns, "hostport", pod(c))
	p := cluster.Await(t, ns, "hostport", cluster.Ready)
	url := "http://" + net.JoinHostPort(p.Status.HostIP, "18080") + "/"
	cluster.Eventually(t, cluster.Soon, func() error {
		got, err := cluster.Get(t.Context(), url)
		if err == nil && got != "hostport\n" {
			err = fmt.Errorf("it answers %q", got)
		}
		return err
	})
	cluster.Kubectl(t, "delete", "pod", "-n", ns, "hostport")
	cluster.Eventually(t, cluster.Soon, func() error {
		if got, err := cluster.Get(t.Context(), url); err == nil {
			return fmt.Errorf("the Pod is gone, its port answers %q", got)
		}
		return nil
	})
}
