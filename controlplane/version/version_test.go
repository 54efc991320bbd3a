package version

import (
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	componentversion "k8s.io/component-base/version"
)

func TestReported(t *testing.T) {
	got := componentversion.Get()
	if got.GitVersion != Kubernetes || got.Major != "1" || got.Minor != "37" || strings.Contains(got.GitCommit, "$") {
		t.Errorf("version.Get() = %+v, want %s", got, Kubernetes)
	}
	if ua := rest.DefaultKubernetesUserAgent(); strings.Contains(ua, "$") || !strings.Contains(ua, "v1.37.2") {
		t.Errorf("user agent %q carries a placeholder", ua)
	}
}
