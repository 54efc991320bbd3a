package deploy

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flyball.dev/test/e2e/internal/cluster"
)

// TestAutoscaler: upstream's HorizontalPodAutoscaler, with metrics from this test, drives Deployments of both groups
// through their scale subresource: up to its minimum, up under load, no further than its maximum, and down again.
func TestAutoscaler(t *testing.T) {
	m := serveMetrics(t)
	people := map[string]*person{}
	for resource, kind := range map[string]string{"deployment": "apps/v1", "deployment.apps.flyball.dev": "apps.flyball.dev/v1alpha1"} {
		p := &person{t, cluster.Namespace(t)}
		people[resource] = p
		one := strings.Replace(p.web(kind, "one"), "replicas: 2", "replicas: 1", 1)
		one = strings.Replace(one, "ports:", "resources: {requests: {cpu: 100m}}\n        ports:", 1)
		cluster.KubectlInput(t, one, "apply", "--server-side", "-f", "-")
		p.kubectl("autoscale", resource+"/web", "--min=2", "--max=5", "--cpu=50%")
		p.kubectl("patch", "hpa/web", "--type=merge", "-p", `{"spec":{"behavior":{"scaleDown":{"stabilizationWindowSeconds":0}}}}`)
	}
	const patience = 3 * time.Minute // it looks every 15 s
	have := func(what string, n int) {
		t.Helper()
		for resource, p := range people {
			cluster.Eventually(t, patience, func() error {
				status := p.kubectl("get", resource, "web", "-o", "jsonpath={.spec.replicas} {.status.availableReplicas}")
				if status != fmt.Sprintf("%d %d", n, n) {
					return fmt.Errorf("%s: %s has %s replicas, want %d; %s", what, resource, status, n, p.kubectl("get", "hpa"))
				}
				return nil
			})
		}
	}
	m.milliCPU.Store(50) // 50 % of what is requested: as wanted
	have("the minimum", 2)
	m.milliCPU.Store(100)
	have("the maximum under load", 5)
	m.milliCPU.Store(1)
	have("the minimum when idle", 2)
	for resource, p := range people {
		p.says(resource, p.kubectl("describe", "hpa", "web"), `AbleToScale +True`, `ScalingActive +True`, `SuccessfulRescale`,
			`Reference: +Deployment/web`)
	}
}

// metrics is a metrics server: every Pod uses as much CPU as it is told.
type metrics struct {
	t        *testing.T
	milliCPU atomic.Int64
}

func serveMetrics(t *testing.T) *metrics {
	t.Helper()
	m := &metrics{t: t}
	ns := cluster.Namespace(t)
	nodes, err := cluster.Client(t).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var ip string
	for _, a := range nodes.Items[0].Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			ip = a.Address
		}
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(m)
	server.Listener.Close()
	server.Listener = listener
	server.StartTLS()
	t.Cleanup(server.Close)
	port := listener.Addr().(*net.TCPAddr).Port
	cluster.KubectlInput(t, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: metrics, namespace: %[1]s}
spec: {ports: [{port: 443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: metrics, namespace: %[1]s, labels: {kubernetes.io/service-name: metrics}}
addressType: IPv4
ports: [{port: %[2]d}]
endpoints: [{addresses: ["%[3]s"]}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  group: metrics.k8s.io
  version: v1beta1
  service: {namespace: %[1]s, name: metrics}
  insecureSkipTLSVerify: true
  groupPriorityMinimum: 100
  versionPriority: 100
`, ns, port, ip), "apply", "-f", "-")
	t.Cleanup(func() {
		// Namespaces go away only while all APIs answer.
		_ = cluster.Flyball("kubectl", "delete", "apiservice", "v1beta1.metrics.k8s.io")
	})
	cluster.Kubectl(t, "wait", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io", "--timeout=60s")
	return m
}

// ServeHTTP answers as the API metrics.k8s.io/v1beta1 does.
func (m *metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const base = "/apis/metrics.k8s.io/v1beta1"
	rest, found := strings.CutPrefix(r.URL.Path, base)
	parts := strings.Split(rest, "/")
	switch {
	case !found:
		http.NotFound(w, r)
		return
	case rest == "":
		m.answer(w, metav1.APIResourceList{
			TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "metrics.k8s.io/v1beta1",
			APIResources: []metav1.APIResource{{Name: "pods", Namespaced: true, Kind: "PodMetrics", Verbs: metav1.Verbs{"get", "list"}}},
		})
		return
	case len(parts) != 4 || parts[1] != "namespaces" || parts[3] != "pods":
		http.NotFound(w, r)
		return
	}
	pods, err := cluster.Client(m.t).CoreV1().Pods(parts[2]).List(r.Context(), metav1.ListOptions{LabelSelector: r.URL.Query().Get("labelSelector")})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	items := []any{}
	for _, pod := range pods.Items {
		items = append(items, map[string]any{
			"metadata":  map[string]any{"name": pod.Name, "namespace": pod.Namespace, "labels": pod.Labels},
			"timestamp": metav1.Now(), "window": "1s",
			"containers": []any{map[string]any{"name": "web", "usage": map[string]any{"cpu": fmt.Sprintf("%dm", m.milliCPU.Load()), "memory": "1Mi"}}},
		})
	}
	m.answer(w, map[string]any{"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": map[string]any{}, "items": items})
}

func (m *metrics) answer(w http.ResponseWriter, what any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(what)
}
