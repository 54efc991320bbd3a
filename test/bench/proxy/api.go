package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// cluster is a simulated API server: as much of one as a service proxy asks for.
type cluster struct {
	endpoints int

	mu      sync.Mutex
	objects map[string][]any // by resource
	version int
	watches map[chan event]string // the resource of each
}

type event struct {
	Type   string `json:"type"`
	Object any    `json:"object"`
}

func newCluster(services, endpoints int) *cluster {
	c := &cluster{endpoints: endpoints, objects: map[string][]any{}, watches: map[chan event]string{}, version: 1}
	c.objects["nodes"] = []any{&corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: nodeName, UID: "node", ResourceVersion: "1"},
		Spec:       corev1.NodeSpec{PodCIDR: "10.42.0.0/24", PodCIDRs: []string{"10.42.0.0/24"}},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}},
	}}
	for i := range services {
		c.add(i)
	}
	return c
}

func clusterIP(i int) string { return netip.AddrFrom4([4]byte{10, 43, byte(i >> 8), byte(i)}).String() }

func address(i int) string { return clusterIP(i) + ":80" }

// endpointIP is the address of every Service's endpoint number e.
func endpointIP(e int) string { return netip.AddrFrom4([4]byte{10, 42, 0, byte(1 + e)}).String() }

// add creates a Service and its EndpointSlice.
func (c *cluster) add(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version++
	name, port, ready := fmt.Sprintf("svc-%05d", i), int32(backend), true
	meta := metav1.ObjectMeta{Namespace: "bench", Name: name, ResourceVersion: strconv.Itoa(c.version)}
	svc := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: meta,
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: clusterIP(i), ClusterIPs: []string{clusterIP(i)},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports:      []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
		},
	}
	meta.Labels = map[string]string{discoveryv1.LabelServiceName: name}
	slice := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"}, ObjectMeta: meta,
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &svc.Spec.Ports[0].Name, Port: &port, Protocol: &svc.Spec.Ports[0].Protocol}},
	}
	for e := range c.endpoints {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{endpointIP(e)}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		})
	}
	c.emit("services", svc)
	c.emit("endpointslices", slice)
}

func (c *cluster) emit(resource string, object any) {
	c.objects[resource] = append(c.objects[resource], object)
	for w, r := range c.watches {
		if r == resource {
			w <- event{"ADDED", object}
		}
	}
}

// serve must be called on a thread in the namespace where the server is to be.
func (c *cluster) serve(ctx context.Context) (*http.Server, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", apiAddress)
	if err != nil {
		return nil, fmt.Errorf("listening as the API server: %w", err)
	}
	server := &http.Server{Handler: http.HandlerFunc(c.handle)}
	go func() { _ = server.Serve(listener) }()
	return server, nil
}

func (c *cluster) handle(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet { // Events
		w.WriteHeader(http.StatusCreated)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	base := path.Base(r.URL.Path)
	if base == nodeName {
		_ = send(w, c.objects["nodes"][0])
		return
	}
	if r.URL.Query().Get("watch") != "" {
		c.watch(w, r, base)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	kind, version := "List", "v1"
	if known, ok := map[string][2]string{
		"services": {"ServiceList", "v1"}, "nodes": {"NodeList", "v1"}, "pods": {"PodList", "v1"},
		"endpointslices": {"EndpointSliceList", "discovery.k8s.io/v1"},
		"servicecidrs":   {"ServiceCIDRList", "networking.k8s.io/v1"},
	}[base]; ok {
		kind, version = known[0], known[1]
	}
	items := c.objects[base]
	if items == nil {
		items = []any{}
	}
	_ = send(w, map[string]any{
		"kind": kind, "apiVersion": version, "items": items,
		"metadata": map[string]string{"resourceVersion": strconv.Itoa(c.version)},
	})
}

// watch streams a resource's events from now on. Clients that ask for the present state by
// watch get the answer of a server that is too old for that.
func (c *cluster) watch(w http.ResponseWriter, r *http.Request, resource string) {
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = send(w, metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
			Reason: metav1.StatusReasonInvalid, Code: http.StatusUnprocessableEntity, Message: "sendInitialEvents is forbidden",
		})
		return
	}
	events := make(chan event, 1000)
	since, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	c.mu.Lock()
	c.watches[events] = resource
	for _, o := range c.objects[resource] {
		if m, ok := o.(metav1.Object); ok {
			if v, _ := strconv.Atoi(m.GetResourceVersion()); since > 0 && v > since {
				events <- event{"ADDED", o}
			}
		}
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.watches, events)
		c.mu.Unlock()
	}()
	w.WriteHeader(http.StatusOK)
	flusher, _ := w.(http.Flusher)
	flusher.Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case e := <-events:
			if send(w, e) != nil {
				return
			}
			flusher.Flush()
		}
	}
}

func send(w http.ResponseWriter, object any) error {
	body, err := json.Marshal(object)
	if err == nil {
		_, err = w.Write(append(body, '\n'))
	}
	return err
}
