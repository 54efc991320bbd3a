package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flyball.dev/apis/config/v1alpha1"
)

const header = "apiVersion: config.flyball.dev/v1alpha1\nkind: FlyballConfiguration\n"

func TestDecode(t *testing.T) {
	tests := map[string]struct {
		reason string
		file   string
		want   *v1alpha1.FlyballConfiguration
		errs   []string
	}{
		"Minimal": {
			reason: "Every field is optional.",
			file:   header,
			want:   &v1alpha1.FlyballConfiguration{},
		},
		"Nested": {
			reason: "Fields of parts are nested under their part.",
			file:   header + "port: 7443\nkubelet:\n  maxPods: 20\n",
			want:   &v1alpha1.FlyballConfiguration{Port: 7443, Kubelet: v1alpha1.KubeletConfiguration{MaxPods: 20}},
		},
		"UnknownField": {
			reason: "A typing error must not silently become a default.",
			file:   header + "clusterCidr: 10.1.0.0/16\n",
			errs:   []string{`line 3: unknown field "clusterCidr"`},
		},
		"UnknownNestedFields": {
			reason: "Every unknown field is reported at once, with its line.",
			file:   header + "foo: 1\nkubelet:\n  maxPod: 3\n",
			errs:   []string{`line 3: unknown field "foo"`, `line 5: unknown field "kubelet.maxPod"`},
		},
		"Repeated": {
			reason: "Of two values one would be lost.",
			file:   header + "port: 1\nport: 2\n",
			errs:   []string{`"port" already`},
		},
		"WrongType": {
			reason: "The message names the field.",
			file:   header + "port: many\n",
			errs:   []string{"port", "int"},
		},
		"WrongKind": {
			reason: "A kubeconfig handed over by mistake is not read as a configuration.",
			file:   "apiVersion: v1\nkind: Config\n",
			errs:   []string{`apiVersion: config.flyball.dev/v1alpha1`, `"v1"`},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Decode([]byte(tc.file))
			checkError(t, tc.reason, err, tc.errs)
			if tc.want == nil {
				return
			}
			tc.want.APIVersion, tc.want.Kind = v1alpha1.GroupVersion, v1alpha1.Kind
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s\nDecode(): -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(header+"port: 7443\nnodeName: one\nnodeIP: 192.0.2.7\nserviceCIDR: 10.99.0.0/16\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Load(file, func(c *v1alpha1.FlyballConfiguration) error { c.Port = 8443; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if got.Port != 8443 {
		t.Errorf("port is %d: flags override the file", got.Port)
	}
	if got.DNSAddr.String() != "10.99.0.10" {
		t.Errorf("cluster DNS is %s: its default follows the Service range", got.DNSAddr)
	}

	_, err = Load("", func(c *v1alpha1.FlyballConfiguration) error {
		c.NodeIP, c.Port, c.ClusterCIDR = "::1", 70000, "10.42.0.1/16"
		return nil
	})
	checkError(t, "Validation reports everything at once.", err, []string{"nodeIP", "port", "clusterCIDR", "10.42.0.0/16"})

	_, err = Load(filepath.Join(t.TempDir(), "none.yaml"), func(*v1alpha1.FlyballConfiguration) error { return nil })
	checkError(t, "A file that is not there is not an empty one.", err, []string{"none.yaml"})
}

func checkError(t *testing.T, reason string, err error, want []string) {
	t.Helper()
	if (err != nil) != (len(want) > 0) {
		t.Fatalf("%s\nerror is %v, want one that says %q", reason, err, want)
	}
	for _, part := range want {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s\nerror %q does not say %q", reason, err, part)
		}
	}
}
