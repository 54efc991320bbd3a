package parts

import (
	"slices"
	"strings"
)

// pullProxy is Proxy with the cluster's own names and addresses added to NO_PROXY: a registry may run in the cluster.
// Go's clients leave the loopback out by themselves, and prefer NO_PROXY to no_proxy.
func (s Set) pullProxy() []string {
	var kept []string
	var noProxy [2]string
	for _, v := range s.Proxy {
		switch name, value, _ := strings.Cut(v, "="); name {
		case "NO_PROXY":
			noProxy[0] = value
		case "no_proxy":
			noProxy[1] = value
		default:
			kept = append(kept, v)
		}
	}
	if len(kept) == 0 {
		return s.Proxy
	}
	c := s.Config
	list := []string{noProxy[0], c.NodeIP, c.ClusterCIDR, c.ServiceCIDR, ".svc", "." + c.ClusterDomain}
	if list[0] == "" {
		list[0] = noProxy[1]
	}
	list = slices.DeleteFunc(list, func(entry string) bool { return entry == "" })
	return append(kept, "NO_PROXY="+strings.Join(list, ","))
}
