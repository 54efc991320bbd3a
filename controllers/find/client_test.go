package find_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"flyball.dev/controllers/find"
)

func TestNewClientKeepsTheConfig(t *testing.T) {
	cfg := &rest.Config{Host: "https://localhost:6443", QPS: 7}
	before := rest.CopyConfig(cfg)
	if _, err := find.NewClient(cfg); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, cfg); diff != "" {
		t.Errorf("NewClient must not change its caller's rest.Config: %s", diff)
	}
}
