package simulated

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestAddresses(t *testing.T) {
	a := newAddresses(netip.MustParsePrefix("192.0.2.0/29"))
	seen := map[netip.Addr]bool{}
	for range 6 {
		ip, err := a.allocate()
		if err != nil || seen[ip] || !a.from.Contains(ip) {
			t.Fatalf("took %s after %v: %v", ip, seen, err)
		}
		seen[ip] = true
	}
	if ip, err := a.allocate(); err == nil || !strings.Contains(err.Error(), "192.0.2.0/29") {
		t.Errorf("a seventh address: %s, %v", ip, err)
	}
	back := netip.MustParseAddr("192.0.2.4")
	a.release(back)
	if ip, err := a.allocate(); err != nil || ip != back {
		t.Errorf("took %s: %v, want the one that is free again", ip, err)
	}
}

func TestConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string // "" means that it is taken
	}{
		"Good":         {func(*Config) {}, ""},
		"NoNodes":      {func(c *Config) { c.Nodes = 0 }, ""},
		"NoClient":     {func(c *Config) { c.Client = nil }, "there is no client"},
		"TooMany":      {func(c *Config) { c.Nodes = 10001 }, "10001 nodes are out of range"},
		"Negative":     {func(c *Config) { c.Nodes = -1 }, "-1 nodes are out of range"},
		"NoNodeName":   {func(c *Config) { c.Prefix = "Node_" }, `the prefix "Node_" does not begin the name of a node`},
		"LongNodeName": {func(c *Config) { c.Prefix, c.Nodes = strings.Repeat("a", 62), 11 }, "must be no more than 63"},
		"EverythingIs": {func(c *Config) { *c = Config{Nodes: -1} }, "there is no client"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Client: &rest.Config{}, Nodes: 3}
			tc.change(&cfg)
			_, err := cfg.complete()
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

// TestPodAddresses: a Pod gets an address from each range of its node, in order, and releases them.
func TestPodAddresses(t *testing.T) {
	nodes := cache.NewStore(cache.MetaNamespaceKeyFunc)
	if err := nodes.Add(&v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: v1.NodeSpec{PodCIDRs: []string{"192.0.2.0/24", "2001:db8::/64"}},
	}); err != nil {
		t.Fatal(err)
	}
	r := newRuntime(nil, &nodeSource{name: "n1", nodes: nodes}, nil, "", nil)
	created, err := r.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: &runtimeapi.PodSandboxConfig{}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: created.PodSandboxId})
	if err != nil {
		t.Fatal(err)
	}
	network := got.Status.Network
	if network.Ip != "192.0.2.2" || len(network.AdditionalIps) != 1 || network.AdditionalIps[0].Ip != "2001:db8::2" {
		t.Errorf("got %v, want an address from each range", network)
	}
	if _, err := r.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: created.PodSandboxId}); err != nil {
		t.Fatal(err)
	}
	for _, pool := range r.own {
		if len(pool.used) > 0 {
			t.Errorf("the sandbox has stopped and still uses %v", pool.used)
		}
	}
}

func TestNodeIPs(t *testing.T) {
	seen := map[netip.Addr]bool{}
	for i := range 10000 {
		ip := nodeIP(i)
		if seen[ip] || !nodeRange.Contains(ip) {
			t.Fatalf("node %d has %s", i, ip)
		}
		seen[ip] = true
	}
}

// TestEvents: several changes of a Pod are one event, and the stream ends
// with its context.
func TestEvents(t *testing.T) {
	r := newRuntime(nil, nil, nil, "", nil)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := r.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.changed("a")
	r.changed("a")
	r.mu.Unlock()
	event, err := stream.Recv()
	if err != nil || event.GetPodSandboxStatus().GetMetadata().GetUid() != "a" {
		t.Errorf("received %v, %v", event, err)
	}
	cancel()
	if event, err := stream.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("received %v, %v after the end", event, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.listeners) != 0 {
		t.Error("the runtime still has a listener")
	}
}

// TestUnknownCalls: what the agent does not use is refused, and does not panic.
func TestUnknownCalls(t *testing.T) {
	_, err := newRuntime(nil, nil, nil, "", nil).CheckpointContainer(t.Context(), &runtimeapi.CheckpointContainerRequest{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("error %v", err)
	}
}

// TestPodSource: a handler gets the Pods that were there, and then each change in order.
func TestPodSource(t *testing.T) {
	store := cache.NewIndexer(cache.MetaNamespaceKeyFunc, podIndexers)
	s := &podSource{node: "n1", pods: store}
	pod := func(name, version string) *v1.Pod {
		return &v1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, ResourceVersion: version}, Spec: v1.PodSpec{NodeName: "n1"},
		}
	}
	set := func(old, p *v1.Pod) {
		if err := store.Add(p); err != nil {
			t.Fatal(err)
		}
		s.deliver(old, p)
	}
	other := pod("other", "9")
	other.Spec.NodeName = "n2"
	if err := store.Add(other); err != nil {
		t.Fatal(err)
	}
	set(nil, pod("a", "1"))
	got := make(chan string, 10)
	name := func(obj any) string { p := obj.(*v1.Pod); return p.Name + p.ResourceVersion }
	ctx, cancel := context.WithCancel(t.Context())
	done, synced := make(chan error), make(chan struct{})
	go func() {
		done <- s.Run(ctx, cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { got <- "add " + name(obj) },
			UpdateFunc: func(old, obj any) { got <- "update " + name(old) + " " + name(obj) },
			DeleteFunc: func(obj any) { got <- "delete " + name(obj) },
		}, func() { close(synced) })
	}()
	<-synced
	set(nil, pod("b", "2"))
	set(pod("a", "1"), pod("a", "3"))
	if err := store.Delete(pod("a", "4")); err != nil {
		t.Fatal(err)
	}
	s.deliver(pod("a", "4"), nil)
	for _, want := range []string{"add a1", "add b2", "update a1 a3", "delete a4"} {
		if event := <-got; event != want {
			t.Errorf("got %q, want %q", event, want)
		}
	}
	if _, ok := s.Pod("ns", "a"); ok || len(s.Pods()) != 1 {
		t.Errorf("there are still %v", s.Pods())
	}
	if _, ok := s.Pod("ns", "other"); ok {
		t.Error("the source has a Pod of another node")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	set(nil, pod("c", "5"))
	select {
	case event := <-got:
		t.Errorf("got %q after the end", event)
	case <-time.After(time.Millisecond):
	}
}
