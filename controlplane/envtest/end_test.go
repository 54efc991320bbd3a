package envtest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLeft(t *testing.T) {
	for name, c := range map[string]struct {
		reason, flyballtest string
		args                []string
		want                []string
	}{
		"none":        {reason: "started by hand"},
		"flyballtest": {reason: "its own directory", flyballtest: "/tmp/flyballtest-7-1", want: []string{"/tmp/flyballtest-7-1"}},
		"not that":    {reason: "another directory is nobody's to remove", flyballtest: "/home"},
		"envtest": {
			reason: "each program has one of its own", args: []string{"--data-dir=/tmp/k8s_test_framework_1", "--name=x", "--cert-dir=/tmp/k8s_test_framework_2"},
			want: []string{"/tmp/k8s_test_framework_1", "/tmp/k8s_test_framework_2"},
		},
		"the user's":  {reason: "a suite may keep its data", args: []string{"--data-dir=/srv/data"}},
		"below":       {reason: "that is not envtest's own", args: []string{"--data-dir=/tmp/k8s_test_framework_1/etcd"}},
		"other flags": {reason: "they may name files of the suite", args: []string{"--service-account-key-file=/tmp/k8s_test_framework_1"}},
	} {
		if diff := cmp.Diff(c.want, left(c.flyballtest, c.args)); diff != "" {
			t.Errorf("%s: %s: -want +got:\n%s", name, c.reason, diff)
		}
	}
}

func TestParentVariable(t *testing.T) {
	t.Setenv(ParentVariable, "stay")
	err := EndWithParent(nil)
	if err == nil || !strings.Contains(err.Error(), `FLYBALL_ENVTEST_PARENT="stay"`) || !strings.Contains(err.Error(), `"ignore"`) {
		t.Errorf("got error %v, want one that names the variable, what it is, and what is allowed", err)
	}
}
