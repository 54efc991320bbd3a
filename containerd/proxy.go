package containerd

import (
	"slices"
	"strings"
)

// sameProxy reports whether a process with this /proc/PID/environ has the same proxy.
func sameProxy(environ []byte, proxy []string) bool {
	var has []string
	for v := range strings.SplitSeq(string(environ), "\x00") {
		if name, _, _ := strings.Cut(v, "="); IsProxyVariable(name) {
			has = append(has, v)
		}
	}
	return slices.Equal(slices.Sorted(slices.Values(has)), slices.Sorted(slices.Values(proxy)))
}

// IsProxyVariable reports whether the environment variable of this name configures a proxy.
func IsProxyVariable(name string) bool {
	return slices.Contains([]string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}, strings.ToUpper(name))
}
