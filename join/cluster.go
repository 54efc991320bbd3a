package join

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/containerd/v2/pkg/atomicfile"
	certutil "k8s.io/client-go/util/cert"
	"sigs.k8s.io/yaml"
)

// Cluster is what a machine knows of the cluster that it has joined. It is kept in the agent's directory and does not
// change, except for Server and NodeIP when the server or this machine has moved.
type Cluster struct {
	// Server is the URL of the API server.
	Server string `json:"server"`
	// NodeName is the name that this machine has joined by.
	NodeName string `json:"nodeName"`
	// NodeIP is the address that was chosen for this machine when it joined. It is kept, because another start might find
	// another one: a route or a name server is enough for that. Empty on a machine that joined before it was kept.
	NodeIP string `json:"nodeIP,omitempty"`
	// The ranges, the DNS address and the domain that the cluster was made with.
	ClusterCIDR   string `json:"clusterCIDR"`
	ServiceCIDR   string `json:"serviceCIDR"`
	ClusterDNS    string `json:"clusterDNS"`
	ClusterDomain string `json:"clusterDomain"`
}

// The files of the agent's directory. The kubeconfigs' names are those that the control plane uses on its own machine.
const (
	clusterFile   = "cluster.yaml"
	authorityFile = "client-ca.crt"
	clientPair    = "kubelet-client"
	servingPair   = "kubelet-server"
)

// kubeconfigs are those that the parts of the node start with. On a joined machine all of them carry the node's own
// identity: it is the only one that upstream approves and renews, and what the proxy, the network and the DNS server need
// beyond a node's rights is read by every node agent in the field (Services, EndpointSlices, Nodes, Namespaces), by a
// ClusterRole that is bound to system:nodes. Pods are still limited to those of the node, by the Node authorizer.
var kubeconfigs = []string{"kubelet.kubeconfig", "proxy.kubeconfig", "dns.kubeconfig"}

// Read returns the cluster that the machine with this agent's directory has joined; nil if it has joined none.
func Read(dir string) (*Cluster, error) {
	path := filepath.Join(dir, clusterFile)
	data, err := os.ReadFile(path)
	// What is wrong with the data directory, or with who asks, the checks of the host say better.
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	c := &Cluster{}
	if err == nil {
		err = yaml.UnmarshalStrict(data, c)
	}
	if err == nil {
		err = c.validate()
	}
	if err != nil {
		return nil, fmt.Errorf("reading which cluster this machine has joined from %s: %w; `flyball down --purge` lets it join anew", path, err)
	}
	return c, nil
}

func (c *Cluster) validate() error {
	var errs []error
	for name, cidr := range map[string]string{"clusterCIDR": c.ClusterCIDR, "serviceCIDR": c.ServiceCIDR} {
		if _, err := netip.ParsePrefix(cidr); err != nil {
			errs = append(errs, fmt.Errorf("%s %q is not an address range", name, cidr))
		}
	}
	if _, err := netip.ParseAddr(c.ClusterDNS); err != nil {
		errs = append(errs, fmt.Errorf("clusterDNS %q is not an address", c.ClusterDNS))
	}
	if _, err := netip.ParseAddr(c.NodeIP); err != nil && c.NodeIP != "" {
		errs = append(errs, fmt.Errorf("nodeIP %q is not an address", c.NodeIP))
	}
	for name, value := range map[string]string{"server": c.Server, "nodeName": c.NodeName, "clusterDomain": c.ClusterDomain} {
		if value == "" {
			errs = append(errs, fmt.Errorf("%s is empty", name))
		}
	}
	return errors.Join(errs...)
}

// write is the last step of joining: with this file the machine has joined.
func (c *Cluster) write(dir string) error {
	data, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", clusterFile, err)
	}
	return writeFile(filepath.Join(dir, clusterFile), data, 0o600)
}

// PinOf is the pin of the authority in an agent's directory.
func PinOf(dir string) (string, error) {
	path := filepath.Join(dir, authorityFile)
	certs, err := certutil.CertsFromFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the cluster's authority: %w; `flyball down --purge` lets this machine join anew", err)
	}
	return Pin(certs[0]), nil
}

// writeFile replaces a file so that a crash leaves the old or the new one.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	f, err := atomicfile.New(path, mode)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("writing %s: %w", path, errors.Join(err, f.Cancel()))
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
