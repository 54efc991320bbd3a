package join

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	certutil "k8s.io/client-go/util/cert"
	"sigs.k8s.io/yaml"

	"flyball.dev/internal/atomicfile"
)

// Cluster is cluster.yaml: the settings of the cluster that this host has joined. They do not
// change, except for Server and NodeIPs when the server or this host has moved.
type Cluster struct {
	// Server is the URL of the API server.
	Server string `json:"server"`
	// NodeName is the name that this host has joined with.
	NodeName string `json:"nodeName"`
	// NodeIPs are the addresses that this host had when it joined. They are stored, because a later
	// start might choose others, for example after a change of routes. Empty if an old version of
	// Flyball joined.
	NodeIPs List `json:"nodeIP,omitempty"`
	// The settings that the cluster was created with.
	ClusterCIDRs  List   `json:"clusterCIDR"`
	ServiceCIDRs  List   `json:"serviceCIDR"`
	ClusterDNS    List   `json:"clusterDNS"`
	ClusterDomain string `json:"clusterDomain"`
}

// List is one or two addresses or ranges, in order. In cluster.yaml it is one string, with a comma
// between the two.
type List []string

func (l List) String() string { return strings.Join(l, ",") }

// MarshalText implements encoding.TextMarshaler.
func (l List) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *List) UnmarshalText(text []byte) error {
	*l = parseList(string(text))
	return nil
}

func parseList(text string) List {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

func listOf(addresses []netip.Addr) (l List) {
	for _, a := range addresses {
		l = append(l, a.String())
	}
	return l
}

// The files of the agent's directory. The control plane uses the same names of kubeconfigs on its
// own host.
const (
	clusterFile = "cluster.yaml"
	caFile      = "client-ca.crt"
	clientPair  = "kubelet-client"
	servingPair = "kubelet-server"
	storagePair = "storage-client"
)

// kubeconfigs are those of the node's components. On a joined host all of them carry the node's own
// identity, the only one that upstream approves and renews. (The storage driver has another one.) A ClusterRole for the group
// system:nodes lets it read what the proxy, the network and the DNS server need beyond a node's
// permissions (Services, EndpointSlices, Nodes, Namespaces). The Node authorizer still limits it to
// Pods of the node.
var kubeconfigs = []string{"kubelet.kubeconfig", "proxy.kubeconfig", "dns.kubeconfig"}

// Read returns the cluster that the host with this agent's directory has joined, or nil if it has
// joined none.
func Read(dir string) (*Cluster, error) {
	path := filepath.Join(dir, clusterFile)
	data, err := os.ReadFile(path)
	// The checks of the host report faults of the data directory and of permissions better.
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
		return nil, fmt.Errorf("reading which cluster this host has joined from %s: %w; after `flyball down --purge` it can join again", path, err)
	}
	return c, nil
}

func (c *Cluster) validate() error {
	var errs []error
	for name, list := range map[string]List{"clusterCIDR": c.ClusterCIDRs, "serviceCIDR": c.ServiceCIDRs} {
		for cidr := range strings.SplitSeq(list.String(), ",") { // one empty string if there is none
			if _, err := netip.ParsePrefix(cidr); err != nil {
				errs = append(errs, fmt.Errorf("%s %q is not an address range", name, cidr))
			}
		}
	}
	for name, list := range map[string]List{"clusterDNS": strings.Split(c.ClusterDNS.String(), ","), "nodeIP": c.NodeIPs} {
		for _, address := range list {
			if _, err := netip.ParseAddr(address); err != nil {
				errs = append(errs, fmt.Errorf("%s %q is not an address", name, address))
			}
		}
	}
	for name, value := range map[string]string{"server": c.Server, "nodeName": c.NodeName, "clusterDomain": c.ClusterDomain} {
		if value == "" {
			errs = append(errs, fmt.Errorf("%s is empty", name))
		}
	}
	return errors.Join(errs...)
}

// write is the last step of joining: with this file the host has joined.
func (c *Cluster) write(dir string) error {
	data, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", clusterFile, err)
	}
	return atomicfile.Write(filepath.Join(dir, clusterFile), data, 0o600)
}

// PinOf returns the pin of the CA in an agent's directory.
func PinOf(dir string) (string, error) {
	path := filepath.Join(dir, caFile)
	certs, err := certutil.CertsFromFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the cluster's CA: %w; after `flyball down --purge` this host can join again", err)
	}
	return Pin(certs[0]), nil
}
