//go:build linux

package kubelet

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/util/cert"

	"flyball.dev/kubelet/cgroups"
	"flyball.dev/kubelet/cri/remote"
	"flyball.dev/kubelet/pod"
	"flyball.dev/kubelet/volumes"
	"flyball.dev/kubelet/volumes/csi"
)

// gatherer registers the metrics of this agent and of others. The registry is the agent's own: that
// of the process would keep the metrics of an earlier agent for ever.
func gatherer(own, others []prometheus.Collector) (prometheus.Gatherer, error) {
	registry := prometheus.NewRegistry()
	for _, c := range slices.Concat(own, others) {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("registering the node agent's metrics: %w", err)
		}
	}
	return registry, nil
}

// collectors have the metrics that docs/metrics.md lists.
func collectors(
	cfg Config, pods *pod.Manager, rt *remote.Client, groups *cgroups.Manager, vols *volumes.Manager, csiVolumes *csi.Plugin,
) []prometheus.Collector {
	name := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kubelet_node_name", Help: "The name of the Node, as a label. It is always 1.",
		ConstLabels: prometheus.Labels{"node": cfg.NodeName},
	})
	name.Set(1)
	return slices.Concat(
		[]prometheus.Collector{name, certificates{cfg}},
		pods.Collectors(), rt.Collectors(), groups.Collectors(), vols.Collectors(), csiVolumes.Collectors(),
	)
}

var (
	clientTTL = prometheus.NewDesc("kubelet_certificate_manager_client_ttl_seconds",
		"Seconds until the node agent's client certificate expires; negative afterwards.", nil, nil)
	serverTTL = prometheus.NewDesc("kubelet_certificate_manager_server_ttl_seconds",
		"Seconds until the certificate of the node agent's server expires; negative afterwards.", nil, nil)
)

// certificates measures how long the agent's certificates are valid. A missing one has no figure.
type certificates struct{ cfg Config }

func (certificates) Describe(ch chan<- *prometheus.Desc) { ch <- clientTTL; ch <- serverTTL }

func (c certificates) Collect(ch chan<- prometheus.Metric) {
	ttl := func(d *prometheus.Desc, c *x509.Certificate) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, time.Until(c.NotAfter).Seconds())
	}
	raw := c.cfg.Client.CertData
	if len(raw) == 0 {
		raw, _ = os.ReadFile(c.cfg.Client.CertFile)
	}
	if all, err := cert.ParseCertsPEM(raw); err == nil {
		ttl(clientTTL, all[0])
	}
	shown, err := c.cfg.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil || shown == nil || len(shown.Certificate) == 0 {
		return
	}
	if parsed, err := x509.ParseCertificate(shown.Certificate[0]); err == nil {
		ttl(serverTTL, parsed)
	}
}
