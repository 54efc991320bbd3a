package containerd

import (
	"slices"
	"strings"
)

// sameProxy tells whether a process with this /proc/PID/environ pulls images through the same proxy.
func sameProxy(environ []byte, proxy []string) bool {
	var has []string
	for v := range strings.SplitSeq(string(environ), "\x00") {
		if name, _, _ := strings.Cut(v, "="); IsProxyVariable(name) {
			has = append(has, v)
		}
	}
	return slices.Equal(slices.Sorted(slices.Values(has)), slices.Sorted(slices.Values(proxy)))
}

// IsProxyVariable tells whether the environment variable of this name says through which proxy to reach whom.
func IsProxyVariable(name string) bool {
	return slices.Contains([]string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}, strings.ToUpper(name))
}
