package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// eventually tries until it works or ten seconds are over.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		pause(5 * time.Millisecond)
	}
}

func apiService() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: corev1.ServiceSpec{
			ClusterIP: "10.43.0.80", ClusterIPs: []string{"10.43.0.80"},
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromString("http")}},
		},
	}
}

func apiSlice(pods ...int) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "web-abcde", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP)}},
	}
	for _, i := range pods {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{podIP(i).String()}, NodeName: new("node")})
	}
	return s
}

// newClient is a fake API, and signals when a watch has begun: unlike a real one, it forgets what
// happens between the list and the watch.
func newClient(objects ...runtime.Object) (client *fake.Clientset, watching chan struct{}) {
	client, watching = fake.NewClientset(objects...), make(chan struct{}, 10)
	client.PrependWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		w, err := client.Tracker().Watch(action.GetResource(), action.GetNamespace())
		watching <- struct{}{}
		return true, w, err
	})
	return client, watching
}

// TestRun follows objects in an API server all the way to packets.
func TestRun(t *testing.T) {
	l := newLab(t)
	l.serve(8080)
	leaks := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(context.Background())
	client, watching := newClient(apiService(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}})
	ready, done := make(chan struct{}), make(chan error, 1)
	cfg := testConfig()
	cfg.Ready = func() { close(ready) }
	c := newController(cfg, client, l.table, l.conntrack)
	go func() { done <- l.node.in(func() error { return c.run(ctx) }) }()
	for _, began := range []<-chan struct{}{ready, watching, watching, watching, watching} { // Services, EndpointSlices, Pods, this Node
		select {
		case <-began:
		case err := <-done:
			t.Fatal(err)
		}
	}
	l.refused(l.client, "tcp", webIP) // what was there at the start works at Ready

	slices := client.DiscoveryV1().EndpointSlices("default")
	answers := func(to, pod string) func() error {
		return func() error {
			a, err := l.client.ask("tcp", to)
			if err == nil && a.pod != pod {
				err = fmt.Errorf("Pod %s answered", a.pod)
			}
			return err
		}
	}
	_, err := slices.Create(ctx, apiSlice(0), metav1.CreateOptions{})
	must(t, err)
	eventually(t, "the first endpoint", answers(webIP, "0"))
	_, err = slices.Update(ctx, apiSlice(1), metav1.UpdateOptions{})
	must(t, err)
	eventually(t, "another endpoint", answers(webIP, "1"))

	must(t, l.node.in(func() error { return exec.Command("nft", "delete", "table", tableName).Run() }))
	_, err = slices.Update(ctx, apiSlice(2), metav1.UpdateOptions{})
	must(t, err)
	eventually(t, "a change after another program deleted the table", answers(webIP, "2"))

	zones := apiSlice(0, 1)
	for i, zone := range []string{"east", "west"} {
		zones.Endpoints[i].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: zone}}}
	}
	_, err = slices.Update(ctx, zones, metav1.UpdateOptions{})
	must(t, err)
	for pod, zone := range []string{"east", "west"} {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node", Labels: map[string]string{corev1.LabelTopologyZone: zone}}}
		_, err = client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
		must(t, err)
		eventually(t, "the endpoint of zone "+zone, func() error {
			for range 10 { // all of them
				if err := answers(webIP, fmt.Sprint(pod))(); err != nil {
					return err
				}
			}
			return nil
		})
	}

	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}}
	pod.Spec.NodeName = "node"
	pod.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{HostPort: 9090, ContainerPort: 8080}}}}
	pod, err = client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
	must(t, err)
	pod.Status.PodIP = podIP(1).String()
	_, err = client.CoreV1().Pods("default").UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	must(t, err)
	eventually(t, "a host port", answers("192.0.2.1:9090", "1"))

	must(t, client.CoreV1().Services("default").Delete(ctx, "web", metav1.DeleteOptions{}))
	eventually(t, "the Service's end", func() error {
		if _, err := l.client.ask("tcp", webIP); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("got %w, want connection refused", err)
		}
		return nil
	})
	var taken net.Listener
	must(t, l.node.in(func() (err error) {
		taken, err = net.Listen("tcp4", ":0")
		return err
	}))
	defer taken.Close()
	lb := apiService()
	lb.Name, lb.Spec.Type, lb.Spec.ExternalTrafficPolicy = "lb", corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal
	lb.Spec.HealthCheckNodePort = int32(taken.Addr().(*net.TCPAddr).Port)
	_, err = client.CoreV1().Services("default").Create(ctx, lb, metav1.CreateOptions{})
	must(t, err)
	eventually(t, "an Event about a port that is taken", func() error {
		list, err := client.CoreV1().Events("default").List(ctx, metav1.ListOptions{})
		if err == nil && (len(list.Items) == 0 || list.Items[0].InvolvedObject.Name != "lb") {
			err = fmt.Errorf("got %v", list.Items)
		}
		return err
	})
	cancel()
	must(t, <-done)
	must(t, answers("192.0.2.1:9090", "1")()) // the table stays
	// goleak's own timeout, 0.4 s, is short for a busy host: nothing waits for the end of the
	// Events' goroutines.
	eventually(t, "the end of all goroutines", func() error { return goleak.Find(leaks) })
}

func TestHealth(t *testing.T) {
	h := newHealth()
	defer func() { must(t, h.close()) }()
	svc := Service{Name: "default/web", Ports: []ServicePort{{Endpoints: endpoints(0, 1)}, {Endpoints: endpoints(0)}}}
	eventually(t, "a free port", func() error { // another process may take it meanwhile
		free, err := net.Listen("tcp4", ":0")
		must(t, err)
		svc.HealthCheckNodePort = uint16(free.Addr().(*net.TCPAddr).Port)
		must(t, free.Close())
		err = h.set(svc)
		if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
		return err
	})
	url := fmt.Sprintf("http://127.0.0.1:%d/healthz", svc.HealthCheckNodePort)
	for name, tc := range map[string]struct {
		change func()
		want   int
		weight string
	}{
		"two Pods here": {func() {}, http.StatusOK, "2"},
		"none here":     {func() { remote(svc.Ports[0].Endpoints); remote(svc.Ports[1].Endpoints) }, http.StatusServiceUnavailable, "0"},
	} {
		saved := svc
		svc.Ports = []ServicePort{{Endpoints: endpoints(0, 1)}, {Endpoints: endpoints(0)}}
		tc.change()
		must(t, h.set(svc))
		resp, err := http.Get(url)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != tc.want || resp.Header.Get("X-Load-Balancing-Endpoint-Weight") != tc.weight {
			t.Errorf("%s: got %d %v", name, resp.StatusCode, resp.Header)
		}
		svc = saved
	}
	svc.HealthCheckNodePort = 0
	must(t, h.set(svc))
	if _, err := http.Get(url); err == nil {
		t.Error("the server is still there")
	}
}

func TestObserve(t *testing.T) {
	endpoint := func(change func(*discoveryv1.EndpointConditions)) []Endpoint {
		s := apiSlice(0)
		change(&s.Endpoints[0].Conditions)
		return observeService("default/web", apiService(), []*discoveryv1.EndpointSlice{s}, place{"node", "here"}).Ports[0].Endpoints
	}
	at, none := netip.AddrPortFrom(podIP(0), 8080), [2]Hint{}
	for name, tc := range map[string]struct {
		reason string
		change func(*discoveryv1.EndpointConditions)
		want   Endpoint
	}{
		"Unknown":  {"Conditions that are not set count as ready.", func(*discoveryv1.EndpointConditions) {}, Endpoint{at, true, true, true, false, none}},
		"NotReady": {"What is not ready does not serve, unless it says so.", func(c *discoveryv1.EndpointConditions) { c.Ready = new(false) }, Endpoint{at, true, false, false, false, none}},
		"Terminating": {"An endpoint may serve while it terminates.", func(c *discoveryv1.EndpointConditions) {
			c.Ready, c.Serving, c.Terminating = new(false), new(true), new(true)
		}, Endpoint{at, true, false, true, true, none}},
	} {
		if got := endpoint(tc.change); len(got) != 1 || got[0] != tc.want {
			t.Errorf("%s: %s got %v, want %v", name, tc.reason, got, tc.want)
		}
	}
	zone, node := discoveryv1.ForZone{Name: "here"}, discoveryv1.ForNode{Name: "node"}
	for name, tc := range map[string]struct {
		hints *discoveryv1.EndpointHints
		want  [2]Hint
	}{
		"none":         {nil, [2]Hint{}},
		"this zone":    {&discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "there"}, zone}}, [2]Hint{NoHint, ForUs}},
		"another zone": {&discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "there"}}}, [2]Hint{NoHint, ForOthers}},
		"this node":    {&discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{zone}, ForNodes: []discoveryv1.ForNode{node}}, [2]Hint{ForUs, ForUs}},
		"another node": {&discoveryv1.EndpointHints{ForNodes: []discoveryv1.ForNode{{Name: "other"}}}, [2]Hint{ForOthers, NoHint}},
		"empty":        {&discoveryv1.EndpointHints{ForNodes: []discoveryv1.ForNode{}}, [2]Hint{}},
	} {
		s := apiSlice(0)
		s.Endpoints[0].Hints = tc.hints
		trimmed, err := trim(s)
		must(t, err)
		got := observeService("default/web", apiService(), []*discoveryv1.EndpointSlice{trimmed.(*discoveryv1.EndpointSlice)}, place{"node", "here"})
		if diff := cmp.Diff(tc.want, got.Ports[0].Endpoints[0].Hints); diff != "" {
			t.Errorf("hints of %s: -want +got:\n%s", name, diff)
		}
	}
	for name, change := range map[string]func(*corev1.Service){
		"headless":     func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "None", []string{"None"} },
		"ExternalName": func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName },
		"IPv6":         func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "fd00::1", []string{"fd00::1"} },
	} {
		svc := apiService()
		change(svc)
		if got := observeService("default/web", svc, nil, place{node: "node"}); len(got.Ports) != 0 {
			t.Errorf("a Service that is %s has ports: %v", name, got.Ports)
		}
	}
	lb := apiService()
	lb.Spec.Type = corev1.ServiceTypeLoadBalancer
	lb.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{
		{IP: "198.51.100.1"}, {IP: "198.51.100.2", IPMode: new(corev1.LoadBalancerIPModeProxy)}, {Hostname: "lb.example"},
	}
	if got := observeService("default/web", lb, nil, place{node: "node"}).Ports[0].LoadBalancerIPs; len(got) != 1 {
		t.Errorf("load balancer addresses: %v", got)
	}
}
