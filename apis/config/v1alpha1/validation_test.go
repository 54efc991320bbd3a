package v1alpha1

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestNotAServer: what is wrong with a URL is said, and what it looks like.
func TestNotAServer(t *testing.T) {
	for server, says := range map[string]string{
		"192.0.2.1:6443":               "no scheme",
		"server.example":               "no scheme",
		"server.example:6443":          "no scheme",
		"http://192.0.2.1:6443":        "http://, and must have https://",
		"https://":                     "not a URL",
		"https://:6443":                "not a URL",
		"https://192.0.2.1:port":       "not a URL",
		"https://a b:6443":             "not a URL",
		"https://192.0.2.1:":           "no port after the colon",
		"https://192.0.2.1:70000":      "the port 70000",
		"https://192.0.2.1:0":          "the port 0",
		"https://192.0.2.1:6443/api":   "after its host and port",
		"https://192.0.2.1:6443?a=b":   "after its host and port",
		"https://192.0.2.1:6443/#part": "after its host and port",
		"https://token@192.0.2.1:6443": "a user in it",
	} {
		c := &FlyballConfiguration{Server: server}
		SetDefaults(c, HostDefaults{NodeName: "node-1", NodeIP: netip.MustParseAddr("192.0.2.2")})
		err := Validate(c).ToAggregate()
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "--server takes https://HOST:PORT") || strings.Contains(err.Error(), "\n") {
			t.Errorf("of %q it says %v, want one line that says %q and what is allowed", server, err, says)
		}
	}
}

func TestValidate(t *testing.T) {
	host := HostDefaults{NodeName: "node-1", NodeIP: netip.MustParseAddr("192.0.2.2")}
	tests := map[string]struct {
		reason string
		mutate func(*FlyballConfiguration)
		want   []string
	}{
		"Defaults":         {"The defaults alone are valid.", func(*FlyballConfiguration) {}, nil},
		"RelativeDir":      {"A relative directory would depend on where the command is run.", func(c *FlyballConfiguration) { c.DataDir = "data" }, []string{"dataDir"}},
		"RootDir":          {"Purging must never mean the whole disk.", func(c *FlyballConfiguration) { c.DataDir = "//" }, []string{"dataDir"}},
		"RelativeRootDir":  {"Manifests name the whole path.", func(c *FlyballConfiguration) { c.Kubelet.RootDir = "kubelet" }, []string{"kubelet.rootDir"}},
		"RootDirIsDataDir": {"Its entries would be mixed with the cluster's.", func(c *FlyballConfiguration) { c.Kubelet.RootDir = c.DataDir + "/" }, []string{"kubelet.rootDir"}},
		"RootDirAbove":     {"The data directory would be one of its entries.", func(c *FlyballConfiguration) { c.Kubelet.RootDir = "/var/lib" }, []string{"kubelet.rootDir"}},
		"RootDirBelow":     {"Earlier versions had it there.", func(c *FlyballConfiguration) { c.Kubelet.RootDir = c.DataDir + "/kubelet" }, nil},
		"NodeName":         {"The API server accepts DNS subdomains only.", func(c *FlyballConfiguration) { c.NodeName = "Node_1" }, []string{"nodeName"}},
		"LongNodeName":     {"The Node's label kubernetes.io/hostname takes 63 characters.", func(c *FlyballConfiguration) { c.NodeName = strings.Repeat("a", 63) }, nil},
		"TooLongNodeName":  {"The Node would be refused, for ever.", func(c *FlyballConfiguration) { c.NodeName = strings.Repeat("a", 64) }, []string{"nodeName"}},
		"LongFQDN":         {"The labels of a name add up.", func(c *FlyballConfiguration) { c.NodeName = strings.Repeat("a.", 32) + "a" }, []string{"nodeName"}},
		"TrailingDot":      {"It is no part of a Node's name.", func(c *FlyballConfiguration) { c.NodeName = "a." }, []string{"nodeName"}},
		"DigitsAsNodeName": {"A DNS label may begin with a digit.", func(c *FlyballConfiguration) { c.NodeName = "007" }, nil},
		"Localhost":        {"It is a name as any other.", func(c *FlyballConfiguration) { c.NodeName = "localhost" }, nil},
		"NoNodeName":       {"A host without a name has no default.", func(c *FlyballConfiguration) { c.NodeName = "" }, []string{"nodeName"}},
		"NoNodeIP":         {"Without a default route the user must say which address.", func(c *FlyballConfiguration) { c.NodeIP = "" }, []string{"nodeIP"}},
		"SamePorts":        {"Two servers cannot share a port.", func(c *FlyballConfiguration) { c.Kubelet.Port = c.Port }, []string{"kubelet.port"}},
		"Overlap":          {"A packet must be either for a Pod or for a Service.", func(c *FlyballConfiguration) { c.ServiceCIDR, c.ClusterDNS = "10.42.128.0/20", "10.42.128.10" }, []string{"serviceCIDR"}},
		"IPv6":             {"The node network is IPv4.", func(c *FlyballConfiguration) { c.ClusterCIDR = "fd00::/48" }, []string{"clusterCIDR"}},
		"Unmasked":         {"A range that begins in its middle is a mistake.", func(c *FlyballConfiguration) { c.ClusterCIDR = "10.42.1.0/16" }, []string{"clusterCIDR"}},
		"DNSOutside":       {"Only Service addresses are routed to the node itself.", func(c *FlyballConfiguration) { c.ClusterDNS = "10.96.0.10" }, []string{"clusterDNS"}},
		"DNSFirst":         {"The first address is the API server's.", func(c *FlyballConfiguration) { c.ClusterDNS = "10.43.0.1" }, []string{"clusterDNS"}},
		"HugeServices": {"kube-apiserver would refuse it after etcd has started.", func(c *FlyballConfiguration) {
			c.ServiceCIDR, c.ClusterDNS = "10.0.0.0/9", "10.0.0.10"
			c.ClusterCIDR = "172.16.0.0/16"
		}, []string{"serviceCIDR"}},
		"CRIEndpoint": {"A TCP runtime would be open to everybody.", func(c *FlyballConfiguration) { c.CRIEndpoint = "tcp://127.0.0.1:1" }, []string{"criEndpoint"}},
		"OwnCNI": {"The defaults are the runtime's.", func(c *FlyballConfiguration) {
			c.CRIEndpoint, c.CNIConfDir, c.CNIBinDir = "unix:///run/crio/crio.sock", DefaultCNIConfDir, DefaultCNIBinDir
		}, nil},
		"RelativeCNI": {"The runtime has another working directory.", func(c *FlyballConfiguration) {
			c.CRIEndpoint, c.CNIConfDir, c.CNIBinDir = "unix:///run/crio/crio.sock", "net.d", "/opt/cni/bin"
		}, []string{"cniConfDir"}},
		"BundledCNI": {"The bundled runtime reads our own.", func(c *FlyballConfiguration) { c.CNIBinDir = "/opt/cni/bin" }, []string{"cniBinDir"}},
		"Labels":     {"The Node would be refused.", func(c *FlyballConfiguration) { c.Kubelet.Labels = map[string]string{"a b": "c"} }, []string{"kubelet.labels"}},
		"ReservedLabel": {"NodeRestriction would refuse the Node.", func(c *FlyballConfiguration) {
			c.Kubelet.Labels = map[string]string{"node-role.kubernetes.io/worker": "", "topology.kubernetes.io/zone": "a", "example.com/x": "y"}
		}, []string{"kubelet.labels"}},
		"Server":      {"The URL that is printed with a token.", func(c *FlyballConfiguration) { c.Server = "https://192.0.2.1:6443" }, nil},
		"ServerName":  {"A name is as good as an address.", func(c *FlyballConfiguration) { c.Server, c.Token = "https://server.example", "x" }, nil},
		"BareServer":  {"What is not a URL has no scheme to trust.", func(c *FlyballConfiguration) { c.Server = "192.0.2.1:6443" }, []string{"server"}},
		"ServerSlash": {"Browsers add it.", func(c *FlyballConfiguration) { c.Server = "https://192.0.2.1:6443/" }, nil},
		"PlainServer": {"A token must not be sent in the clear.", func(c *FlyballConfiguration) { c.Server = "http://192.0.2.1:6443" }, []string{"server"}},
		"TokenAlone":  {"Nobody knows which server it is of.", func(c *FlyballConfiguration) { c.Token = "x" }, []string{"server"}},
		"UnknownKind": {"Nobody would reconcile them.", func(c *FlyballConfiguration) { c.Controllers.Kinds = []string{"apps/v1", "batch/v1", "apps/v1"} }, []string{"controllers.kinds[1]", "controllers.kinds[2]"}},
		"OneKind":     {"The other is somebody else's.", func(c *FlyballConfiguration) { c.Controllers.Kinds = []string{"apps/v1"} }, nil},
		"Sysctls": {"Those of the whole host are not a Pod's to set, and a pattern has its * at the end.", func(c *FlyballConfiguration) {
			c.Kubelet.AllowedUnsafeSysctls = []string{"kernel.msg*", "vm.swappiness", "net.core.somaxconn", "net.*.x"}
		}, []string{"kubelet.allowedUnsafeSysctls[1]", "kubelet.allowedUnsafeSysctls[3]"}},
		"ImagePolicy": {"A policy that nobody knows protects nothing.", func(c *FlyballConfiguration) {
			c.Kubelet.ImagePullCredentialsVerificationPolicy = "Sometimes"
		}, []string{"kubelet.imagePullCredentialsVerificationPolicy"}},
		"ImageAllowlist": {"A name has neither tag nor digest, and a pattern ends in /*.", func(c *FlyballConfiguration) {
			c.Kubelet.ImagePullCredentialsVerificationPolicy = "NeverVerifyAllowlistedImages"
			c.Kubelet.PreloadedImagesVerificationAllowlist = []string{"registry.example/app", "registry.example/*", "registry.example/app:1", "registry.example/a*", ""}
		}, []string{
			"kubelet.preloadedImagesVerificationAllowlist[2]", "kubelet.preloadedImagesVerificationAllowlist[3]", "kubelet.preloadedImagesVerificationAllowlist[4]",
		}},
		"ImageAllowlistUnread": {"Whoever lists images believes that the list counts.", func(c *FlyballConfiguration) {
			c.Kubelet.PreloadedImagesVerificationAllowlist = []string{"registry.example/app"}
		}, []string{"kubelet.preloadedImagesVerificationAllowlist"}},
		"StoragePaths": {"A volume has one place, which does not depend on where the program starts.", func(c *FlyballConfiguration) {
			c.Storage.Paths = []string{"/mnt/disk2", "disk3", "/", "/mnt/disk2"}
		}, []string{"storage.paths[1]", "storage.paths[2]", "storage.paths[3]"}},
		"EverythingBad": {"All errors are joined.", func(c *FlyballConfiguration) { c.BindAddress, c.Kubelet.MaxPods, c.Logging.Verbosity = "x", -1, 11 }, []string{"bindAddress", "kubelet.maxPods", "logging.verbosity"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			c := &FlyballConfiguration{}
			SetDefaults(c, host)
			tc.mutate(c)
			var got []string
			for _, err := range Validate(c) {
				got = append(got, err.Field)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s\nValidate(): -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

// TestNodeNameRemedy: whoever gave no name reads where it comes from, and what sets another.
func TestNodeNameRemedy(t *testing.T) {
	for _, name := range []string{"", "my_host", strings.Repeat("a", 64)} {
		c := &FlyballConfiguration{}
		SetDefaults(c, HostDefaults{NodeName: name, NodeIP: netip.MustParseAddr("192.0.2.2")})
		err := Validate(c).ToAggregate()
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "host name") || !strings.Contains(err.Error(), "--node-name") {
			t.Errorf("of %q it says %v, want the name, where it comes from and --node-name", name, err)
		}
	}
}
