package main

import (
	"cmp"
	"net/url"
	"os"
	"strings"

	"k8s.io/client-go/tools/clientcmd"

	"flyball.dev/containerd"
)

// takeProxy takes the proxy out of this process's environment, and returns its variables. Nothing that Flyball itself sends
// is for the proxy: Pods, Services and nodes are on networks that it does not know, and their addresses come and go, so
// that no NO_PROXY could list them. Images alone are pulled through it.
func takeProxy() []string {
	var proxy []string
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); containerd.IsProxyVariable(name) {
			proxy = append(proxy, v)
			_ = os.Unsetenv(name) // fails only for a name that no variable can have
		}
	}
	return proxy
}

// passProxy keeps the requests of this command to the servers of a kubeconfig out of the proxy. Others, to another cluster or
// for a manifest on the web, go through it. Without the file there is nothing to keep.
func passProxy(kubeconfig string) error {
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		return nil //nolint:nilerr // whoever needs it says so
	}
	list := cmp.Or(os.Getenv("NO_PROXY"), os.Getenv("no_proxy"))
	for _, cluster := range config.Clusters {
		if u, err := url.Parse(cluster.Server); err == nil && u.Hostname() != "" {
			list = strings.TrimPrefix(list+","+u.Hostname(), ",")
		}
	}
	return os.Setenv("NO_PROXY", list)
}
