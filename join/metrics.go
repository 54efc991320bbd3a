package join

import (
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"
)

// NewCertificates returns what renews the certificates in the agent's directory dir, and counters
// of the renewals that failed. nodeIPs are the addresses that the Node reports.
func NewCertificates(dir, nodeName string, nodeIPs []netip.Addr) (*Certificates, []prometheus.Collector) {
	client := renewFailures("kubelet_certificate_manager_client_expiration_renew_errors", "client certificate")
	serving := renewFailures("kubelet_server_expiration_renew_errors", "serving certificate")
	return &Certificates{
		Dir: dir, NodeName: nodeName, NodeIPs: nodeIPs, ClientFailures: client, ServingFailures: serving,
	}, []prometheus.Collector{client, serving}
}

// renewFailures is a counter with the name that alerts for kubelets use.
func renewFailures(name, certificate string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: "Number of renewals of the node agent's " + certificate + " that failed."})
}
