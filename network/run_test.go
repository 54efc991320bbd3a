package network

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// nodeAPI answers list and watch for Nodes: one without a podCIDR at first, and every event that is
// sent.
func nodeAPI(t *testing.T, events <-chan *v1.Node) *rest.Config {
	t.Helper()
	first := v1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: "a", ResourceVersion: "1"}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("watch") == "" {
			_ = json.NewEncoder(w).Encode(v1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: []v1.Node{first}})
			return
		}
		send := func(kind string, n v1.Node) {
			_ = json.NewEncoder(w).Encode(map[string]any{"type": kind, "object": n})
			w.(http.Flusher).Flush()
		}
		if r.URL.Query().Get("sendInitialEvents") == "true" {
			send("ADDED", first)
			end := v1.Node{TypeMeta: first.TypeMeta}
			end.ResourceVersion, end.Annotations = "1", map[string]string{metav1.InitialEventsAnnotationKey: "true"}
			send("BOOKMARK", end)
		}
		for {
			select {
			case n := <-events:
				send("MODIFIED", *n)
			case <-r.Context().Done():
				return
			}
		}
	}))
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return &rest.Config{Host: server.URL}
}

func TestRun(t *testing.T) {
	node, cfg := newNamespace(t), testConfig(t)
	events, ready, done := make(chan *v1.Node), make(chan struct{}), make(chan error, 1)
	cfg.Client, cfg.Ready = nodeAPI(t, events), func() { close(ready) }
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	node.do(func() {
		addUplink(t)
		if err := Setup(cfg); err != nil {
			t.Fatal(err)
		}
	})
	conf := filepath.Join(cfg.CNIConfDir, conflistName)
	go func() { node.work <- func() { done <- Run(ctx, cfg) } }()
	registered := &v1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: "a", ResourceVersion: "2"}, Spec: v1.NodeSpec{PodCIDR: "10.42.3.0/24"}}
	select {
	case <-ready:
		t.Error("ready without a podCIDR")
	case events <- registered:
	case <-time.After(20 * time.Second):
		t.Fatal("Run did not watch Nodes")
	}
	select {
	case <-ready:
	case err := <-done:
		t.Fatalf("running: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("not ready after the Node got a podCIDR")
	}
	if _, err := os.Stat(conf); err != nil {
		t.Errorf("ready without a CNI configuration: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("running: %v", err)
	}
	node.do(func() {
		h, err := observe()
		if err != nil || len(h.BridgeAddress) != 1 || h.BridgeAddress[0] != p("10.42.3.1/24") {
			t.Errorf("the bridge has %v (%v), want 10.42.3.1/24 also after the end of Run", h.BridgeAddress, err)
		}
	})
}
