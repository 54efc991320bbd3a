package flyballtest

import (
	"encoding/base64"
	"fmt"
	"net"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
)

// Webhooks says where the API server calls the webhooks of this test. With controller-runtime:
//
//	hooks := cluster.Webhooks()
//	webhook.NewServer(webhook.Options{Host: hooks.Host, Port: hooks.Port, CertDir: hooks.CertDir})
type Webhooks struct {
	// Host and Port to listen at. Port is 0 if the cluster was started without WithWebhooks and
	// WithConversion.
	Host string
	Port int
	// CertDir holds the certificate to serve with, tls.crt, and its key, tls.key.
	CertDir string
}

// Webhooks returns where the API server calls the webhooks of this test.
func (c *Cluster) Webhooks() Webhooks { return c.webhooks }

// prepareWebhooks redirects all webhooks among the objects to this host.
func (c *Cluster) prepareWebhooks(objects []object) error {
	if len(c.options.webhooks) == 0 && len(c.options.conversions) == 0 {
		return nil
	}
	p, err := newPort()
	if err != nil {
		return err
	}
	c.ports = append(c.ports, p)
	c.webhooks = Webhooks{Host: host, Port: p.number, CertDir: c.path("webhooks")}
	for _, o := range objects {
		switch o.GetKind() {
		case kindMutatingWebhook, kindValidatingWebhook:
			err = c.redirect(o.Unstructured)
		case kindCRD:
			err = c.convert(o.Unstructured)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", o.from, err)
		}
	}
	return nil
}

// clientConfig is the client configuration of a webhook at path.
func (c *Cluster) clientConfig(path string) map[string]any {
	return map[string]any{
		"url":      "https://" + net.JoinHostPort(host, strconv.Itoa(c.webhooks.Port)) + "/" + strings.TrimPrefix(path, "/"),
		"caBundle": base64.StdEncoding.EncodeToString(c.ca.pem),
	}
}

// redirect replaces Services in a webhook configuration.
func (c *Cluster) redirect(configuration *unstructured.Unstructured) error {
	webhooks, _, err := unstructured.NestedSlice(configuration.Object, "webhooks")
	if err != nil {
		return err
	}
	for _, w := range webhooks {
		webhook, ok := w.(map[string]any)
		if !ok {
			continue // the API server will reject it
		}
		if service, found, _ := unstructured.NestedMap(webhook, "clientConfig", "service"); found {
			path, _ := service["path"].(string)
			webhook["clientConfig"] = c.clientConfig(path)
		}
	}
	return unstructured.SetNestedSlice(configuration.Object, webhooks, "webhooks")
}

// convert redirects the conversion webhook of a CRD to this host, if it has one or the test
// asks for one.
func (c *Cluster) convert(crd *unstructured.Unstructured) error {
	strategy, _, _ := unstructured.NestedString(crd.Object, "spec", "conversion", "strategy")
	if strategy != "Webhook" && !c.options.conversions[crd.GetName()] {
		return nil
	}
	versions, found, _ := unstructured.NestedStringSlice(crd.Object, "spec", "conversion", "webhook", "conversionReviewVersions")
	if !found {
		versions = []string{"v1"}
	}
	path, found, _ := unstructured.NestedString(crd.Object, "spec", "conversion", "webhook", "clientConfig", "service", "path")
	if !found {
		path = "convert"
	}
	reviews := make([]any, 0, len(versions))
	for _, version := range versions {
		reviews = append(reviews, version)
	}
	return unstructured.SetNestedMap(crd.Object, map[string]any{
		"strategy": "Webhook",
		"webhook":  map[string]any{"clientConfig": c.clientConfig(path), "conversionReviewVersions": reviews},
	}, "spec", "conversion")
}

// unconverted returns the resources with a conversion webhook of the test if that does not serve,
// since its manager is stopped during a restore. The API server would retry for seconds.
func (c *Cluster) unconverted(crds []unstructured.Unstructured) sets.Set[schema.GroupVersionResource] {
	found := sets.New[schema.GroupVersionResource]()
	if c.webhooks.Port == 0 {
		return found
	}
	if conn, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(c.webhooks.Port))); err == nil {
		_ = conn.Close()
		return found
	}
	for i := range crds {
		if strategy, _, _ := unstructured.NestedString(crds[i].Object, "spec", "conversion", "strategy"); strategy == "Webhook" {
			found.Insert(servedResources(&crds[i])...)
		}
	}
	return found
}
