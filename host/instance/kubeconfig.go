package instance

import (
	"cmp"
	"net/url"
	"os"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
)

// AdminKubeconfig is where the administrator's kubeconfig lies.
const AdminKubeconfig = "/etc/flyball/kubeconfig"

// Kubeconfig returns the kubeconfig to use when kubeconfig names none: the administrator's, unless
// the environment names another. Requests to this host's servers bypass the proxy of the
// environment from now on.
func Kubeconfig(kubeconfig string) (string, error) {
	if kubeconfig == "" && os.Getenv(clientcmd.RecommendedConfigPathEnvVar) == "" {
		kubeconfig = AdminKubeconfig
	}
	return kubeconfig, bypassProxy(AdminKubeconfig)
}

// bypassProxy keeps the requests of this command to the servers of a kubeconfig out of the proxy.
// Others, to another cluster or for a manifest on the web, go through it. Without the file there is
// nothing to keep.
func bypassProxy(kubeconfig string) error {
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		return nil //nolint:nilerr // the command that needs the file reports it
	}
	list := cmp.Or(os.Getenv("NO_PROXY"), os.Getenv("no_proxy"))
	for _, cluster := range config.Clusters {
		if u, err := url.Parse(cluster.Server); err == nil && u.Hostname() != "" {
			list = strings.TrimPrefix(list+","+u.Hostname(), ",")
		}
	}
	return os.Setenv("NO_PROXY", list)
}
