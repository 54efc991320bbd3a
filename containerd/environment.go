package containerd

import (
	"cmp"
	"os"
	"slices"
	"strings"
)

// TakeProxy removes the proxy variables from this process's environment and returns them as
// NAME=VALUE. Flyball's own requests go to Pods, Services and nodes, whose networks the proxy does
// not know and whose addresses no NO_PROXY could list. Only images are pulled through the proxy.
// Call it before the first request: Go reads the proxy from the environment once.
func TakeProxy() []string {
	var proxy []string
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); IsProxyVariable(name) {
			proxy = append(proxy, v)
			_ = os.Unsetenv(name) // fails only for a name that no variable can have
		}
	}
	return proxy
}

// PullProxy returns the proxy variables for pulling images: names and addresses within the cluster
// are added to NO_PROXY, because a registry may run there. Go's clients leave the loopback out by
// themselves, and prefer NO_PROXY to no_proxy.
func PullProxy(proxy []string, within ...string) []string {
	var kept []string
	var noProxy, lowerCase string
	for _, v := range proxy {
		switch name, value, _ := strings.Cut(v, "="); name {
		case "NO_PROXY":
			noProxy = value
		case "no_proxy":
			lowerCase = value
		default:
			kept = append(kept, v)
		}
	}
	if len(kept) == 0 {
		return proxy
	}
	list := within
	if user := cmp.Or(noProxy, lowerCase); user != "" {
		list = append([]string{user}, within...)
	}
	return append(kept, "NO_PROXY="+strings.Join(list, ","))
}

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
