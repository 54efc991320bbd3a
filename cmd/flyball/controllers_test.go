package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://somewhere:6443"}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
users: [{name: u, user: {token: t}}]
`

func TestControllersFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		reason string
		flags  controllersFlags
		kinds  []schema.GroupVersion
		fails  string
	}{
		"Ours":       {reason: "what config/manager asks for", flags: controllersFlags{kubeconfig: file, kinds: []string{"apps.flyball.dev/v1alpha1"}}, kinds: []schema.GroupVersion{{Group: "apps.flyball.dev", Version: "v1alpha1"}}},
		"Both":       {reason: "what Flyball itself does", flags: controllersFlags{kubeconfig: file, kinds: []string{"apps/v1", " apps.flyball.dev/v1alpha1"}}, kinds: []schema.GroupVersion{{Group: "apps", Version: "v1"}, {Group: "apps.flyball.dev", Version: "v1alpha1"}}},
		"Nonsense":   {reason: "the flag is named", flags: controllersFlags{kubeconfig: file, kinds: []string{"a/b/c"}}, fails: "reading --kinds"},
		"NoSuchFile": {reason: "the error says how to name another", flags: controllersFlags{kubeconfig: file + "x"}, fails: "name its kubeconfig with --kubeconfig"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cfg, err := test.flags.complete()
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Fatalf("%s: got %v", test.reason, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.kinds, cfg.Kinds); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
			if cfg.Client.Host != "https://somewhere:6443" {
				t.Errorf("%s: host %s", test.reason, cfg.Client.Host)
			}
		})
	}
}
