//go:build linux

package kubelet

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are those of this agent, in a registry of their own: that of the process would keep
// those of an earlier agent for ever.
func (m *machine) metrics() (prometheus.Gatherer, error) {
	registry := prometheus.NewRegistry()
	for _, c := range slices.Concat(m.collectors(), m.cfg.Metrics) {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("registering the node agent's metrics: %w", err)
		}
	}
	return registry, nil
}

// collectors have the metrics that docs/metrics.md lists.
func (m *machine) collectors() []prometheus.Collector {
	name := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kubelet_node_name", Help: "The name of the Node, as a label. It is always 1.",
		ConstLabels: prometheus.Labels{"node": m.cfg.NodeName},
	})
	name.Set(1)
	return slices.Concat(
		[]prometheus.Collector{name, certificates{m.cfg}},
		m.Pods.Collectors(), m.host.CRI.Collectors(), m.cgroups.Collectors(), m.volumes.Collectors(),
	)
}

var (
	clientTTL = prometheus.NewDesc("kubelet_certificate_manager_client_ttl_seconds",
		"Seconds until the certificate expires that the node agent shows the API server; negative afterwards.", nil, nil)
	serverTTL = prometheus.NewDesc("kubelet_certificate_manager_server_ttl_seconds",
		"Seconds until the certificate expires that the node agent's server shows; negative afterwards.", nil, nil)
)

// certificates says how long those of the agent are valid. One that is not there has no figure.
type certificates struct{ cfg Config }

// Describe implements prometheus.Collector.
func (certificates) Describe(ch chan<- *prometheus.Desc) { ch <- clientTTL; ch <- serverTTL }

// Collect implements prometheus.Collector.
func (c certificates) Collect(ch chan<- prometheus.Metric) {
	if end := c.client(); !end.IsZero() {
		ch <- prometheus.MustNewConstMetric(clientTTL, prometheus.GaugeValue, time.Until(end).Seconds())
	}
	if end := c.server(); !end.IsZero() {
		ch <- prometheus.MustNewConstMetric(serverTTL, prometheus.GaugeValue, time.Until(end).Seconds())
	}
}

func (c certificates) client() time.Time {
	if c.cfg.Client == nil {
		return time.Time{}
	}
	raw := c.cfg.Client.CertData
	if file := c.cfg.Client.CertFile; len(raw) == 0 && file != "" {
		raw, _ = os.ReadFile(file)
	}
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue // the file may have the key before it
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			return cert.NotAfter
		}
	}
	return time.Time{}
}

func (c certificates) server() time.Time {
	if c.cfg.GetCertificate == nil {
		return time.Time{}
	}
	shown, err := c.cfg.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil || shown == nil || len(shown.Certificate) == 0 {
		return time.Time{}
	}
	cert, err := x509.ParseCertificate(shown.Certificate[0])
	if err != nil {
		return time.Time{}
	}
	return cert.NotAfter
}
