package v1alpha1

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const header = "apiVersion: config.flyball.dev/v1alpha1\nkind: FlyballConfiguration\n"

func TestDecode(t *testing.T) {
	tests := map[string]struct {
		reason string
		file   string
		want   *FlyballConfiguration
		errs   []string
	}{
		"Minimal": {
			reason: "Every field is optional.",
			file:   header,
			want:   &FlyballConfiguration{},
		},
		"Nested": {
			reason: "Fields of a component are nested under the component.",
			file:   header + "port: 7443\nkubelet:\n  maxPods: 20\n",
			want:   &FlyballConfiguration{Port: 7443, Kubelet: KubeletConfiguration{MaxPods: 20}},
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
			tc.want.APIVersion, tc.want.Kind = GroupVersion, Kind
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s\nDecode(): -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
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
