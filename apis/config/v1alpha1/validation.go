package v1alpha1

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	kubeletapis "k8s.io/kubelet/pkg/apis"
	"k8s.io/kubernetes/pkg/kubelet/images/pullmanager"
	"k8s.io/kubernetes/pkg/kubelet/sysctl"
)

const (
	maxVerbosity = 10
	// Each node gets a /24 of the cluster CIDR; fewer bits leave nothing for a node.
	maxClusterBits = 24
	minClusterBits = 8
	// kube-apiserver refuses a Service range of more than 2^20 addresses.
	minServiceBits = 12
	// Below this there is no address for the cluster DNS beside the API server.
	maxServiceBits = 28
)

// Validate reports everything that is wrong with a configuration whose defaults are set.
func Validate(c *FlyballConfiguration) field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, validatePath(field.NewPath("dataDir"), c.DataDir)...)
	errs = append(errs, validateNodeName(field.NewPath("nodeName"), c.NodeName)...)
	for _, msg := range validation.IsDNS1123Subdomain(c.ClusterDomain) {
		errs = append(errs, field.Invalid(field.NewPath("clusterDomain"), c.ClusterDomain, msg))
	}
	errs = append(errs, validateServer(c)...)
	errs = append(errs, validateNodeIP(field.NewPath("nodeIP"), c.NodeIP)...)
	if _, err := netip.ParseAddr(c.BindAddress); err != nil {
		errs = append(errs, field.Invalid(field.NewPath("bindAddress"), c.BindAddress, "must be an IP address"))
	}
	errs = append(errs, validatePorts(c)...)
	errs = append(errs, validateRanges(c)...)
	if e := c.CRIEndpoint; e != "" && !strings.HasPrefix(e, "unix:///") {
		errs = append(errs, field.Invalid(field.NewPath("criEndpoint"), e, "must be a unix socket, such as unix:///run/crio/crio.sock"))
	}
	errs = append(errs, validateCNI(c)...)
	for i, kind := range c.Controllers.Kinds {
		if path := field.NewPath("controllers", "kinds").Index(i); !slices.Contains(allKinds, kind) {
			errs = append(errs, field.NotSupported(path, kind, allKinds))
		} else if slices.Index(c.Controllers.Kinds, kind) < i {
			errs = append(errs, field.Duplicate(path, kind))
		}
	}
	errs = append(errs, validateRootDir(field.NewPath("kubelet", "rootDir"), c)...)
	errs = append(errs, validateKubelet(field.NewPath("kubelet"), &c.Kubelet)...)
	for i, dir := range c.Storage.Paths {
		path := field.NewPath("storage", "paths").Index(i)
		errs = append(errs, validatePath(path, dir)...)
		if slices.Index(c.Storage.Paths, dir) < i {
			errs = append(errs, field.Duplicate(path, dir))
		}
	}
	if v := c.Logging.Verbosity; v < 0 || v > maxVerbosity {
		errs = append(errs, field.Invalid(field.NewPath("logging", "verbosity"), v, fmt.Sprintf("must be from 0 to %d", maxVerbosity)))
	}
	return errs
}

func validatePath(path *field.Path, value string) field.ErrorList {
	switch {
	case !filepath.IsAbs(value):
		return field.ErrorList{field.Invalid(path, value, "must be an absolute path")}
	case filepath.Clean(value) == "/":
		return field.ErrorList{field.Invalid(path, value, "must be a directory of its own")}
	}
	return nil
}

// validateRootDir: `flyball down --purge` removes each directory for itself, and the data directory
// has names of its own.
func validateRootDir(path *field.Path, c *FlyballConfiguration) field.ErrorList {
	if errs := validatePath(path, c.Kubelet.RootDir); len(errs) > 0 {
		return errs
	}
	root, data := filepath.Clean(c.Kubelet.RootDir), filepath.Clean(c.DataDir)
	if root == data || strings.HasPrefix(data, root+"/") {
		return field.ErrorList{field.Invalid(path, c.Kubelet.RootDir, "must be neither dataDir "+c.DataDir+" nor a directory above it")}
	}
	return nil
}

// validateCNI: the bundled runtime has directories of its own.
func validateCNI(c *FlyballConfiguration) field.ErrorList {
	var errs field.ErrorList
	for _, dir := range []struct{ name, value string }{{"cniConfDir", c.CNIConfDir}, {"cniBinDir", c.CNIBinDir}} {
		switch path := field.NewPath(dir.name); {
		case dir.value == "":
		case c.CRIEndpoint == "":
			errs = append(errs, field.Invalid(path, dir.value, "is for a container runtime of your own only: set criEndpoint too"))
		default:
			errs = append(errs, validatePath(path, dir.value)...)
		}
	}
	return errs
}

// validateNodeName: the API server takes a DNS subdomain, and the Node and its Pods carry the name
// in labels, which are shorter. A Node whose label is refused never registers.
func validateNodeName(path *field.Path, value string) field.ErrorList {
	const remedy = "the default is the host name: set nodeName, or --node-name, to another name"
	if value == "" {
		return field.ErrorList{field.Required(path, remedy)}
	}
	msgs := validation.IsDNS1123Subdomain(value)
	if len(value) > validation.LabelValueMaxLength {
		msgs = append(msgs, fmt.Sprintf("must be no more than %d characters, as a label is, and has %d", validation.LabelValueMaxLength, len(value)))
	}
	if len(msgs) == 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(path, value, strings.Join(append(msgs, remedy), "; "))}
}

func validateNodeIP(path *field.Path, value string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "this machine has no default route to take an address from: set one that other machines reach it at")}
	}
	addr, err := netip.ParseAddr(value)
	if err != nil || !addr.Is4() || addr.IsUnspecified() || addr.IsMulticast() {
		return field.ErrorList{field.Invalid(path, value, "must be an IPv4 address of this machine")}
	}
	return nil
}

func validateServer(c *FlyballConfiguration) field.ErrorList {
	path := field.NewPath("server")
	if c.Server == "" {
		if c.Token != "" {
			return field.ErrorList{field.Required(path, "a token is for joining a cluster: say which server's, such as https://192.0.2.1:6443")}
		}
		return nil
	}
	if why := notAServer(c.Server); why != "" {
		return field.ErrorList{field.Invalid(path, c.Server, why+"; --server takes https://HOST:PORT, such as https://192.0.2.1:6443")}
	}
	return nil
}

// notAServer says why this is not the URL of a server; "" if it is one.
func notAServer(server string) string {
	scheme, rest, found := strings.Cut(server, "://")
	if !found {
		return "has no scheme, which is https://"
	}
	u, err := url.Parse(server)
	switch {
	case scheme != "https":
		return "has the scheme " + scheme + "://, and must have https://"
	case err != nil || u.Hostname() == "" || strings.ContainsAny(u.Host, " \t"):
		return "is not a URL"
	case u.User != nil:
		return "has a user in it: a token is what this machine joins with"
	case strings.TrimRight(rest, "/") != u.Host:
		return "goes on after its host and port"
	case strings.HasSuffix(u.Host, ":"):
		return "has no port after the colon"
	}
	if port, err := strconv.Atoi(u.Port()); u.Port() != "" && (err != nil || len(validation.IsValidPortNum(port)) > 0) {
		return "has the port " + u.Port() + ", and ports are from 1 to 65535"
	}
	return ""
}

func validatePorts(c *FlyballConfiguration) field.ErrorList {
	var errs field.ErrorList
	api, kubelet := field.NewPath("port"), field.NewPath("kubelet", "port")
	for _, msg := range validation.IsValidPortNum(c.Port) {
		errs = append(errs, field.Invalid(api, c.Port, msg))
	}
	for _, msg := range validation.IsValidPortNum(c.Kubelet.Port) {
		errs = append(errs, field.Invalid(kubelet, c.Kubelet.Port, msg))
	}
	if c.Port == c.Kubelet.Port {
		errs = append(errs, field.Invalid(kubelet, c.Kubelet.Port, "must differ from port"))
	}
	return errs
}

func validateRanges(c *FlyballConfiguration) field.ErrorList {
	clusterPath, servicePath, dnsPath := field.NewPath("clusterCIDR"), field.NewPath("serviceCIDR"), field.NewPath("clusterDNS")
	cluster, errs := validatePrefix(clusterPath, c.ClusterCIDR, minClusterBits, maxClusterBits)
	service, more := validatePrefix(servicePath, c.ServiceCIDR, minServiceBits, maxServiceBits)
	errs = append(errs, more...)
	if len(errs) > 0 {
		return errs
	}
	if cluster.Overlaps(service) {
		errs = append(errs, field.Invalid(servicePath, c.ServiceCIDR, "must not overlap clusterCIDR "+c.ClusterCIDR))
	}
	dns, err := netip.ParseAddr(c.ClusterDNS)
	switch {
	case err != nil:
		errs = append(errs, field.Invalid(dnsPath, c.ClusterDNS, "must be an IPv4 address"))
	case !service.Contains(dns):
		errs = append(errs, field.Invalid(dnsPath, c.ClusterDNS, "must lie within serviceCIDR "+c.ServiceCIDR))
	case dns == nth(service, 0) || dns == nth(service, 1):
		// The API server takes the first address for the Service "kubernetes".
		errs = append(errs, field.Invalid(dnsPath, c.ClusterDNS, "the first addresses of serviceCIDR belong to the API server"))
	}
	return errs
}

func validatePrefix(path *field.Path, value string, minBits, maxBits int) (netip.Prefix, field.ErrorList) {
	prefix, err := netip.ParsePrefix(value)
	switch {
	case err != nil || !prefix.Addr().Is4():
		return prefix, field.ErrorList{field.Invalid(path, value, "must be an IPv4 range, such as 10.42.0.0/16")}
	case prefix != prefix.Masked():
		return prefix, field.ErrorList{field.Invalid(path, value, "must begin at the first address of the range: "+prefix.Masked().String())}
	case prefix.Bits() < minBits || prefix.Bits() > maxBits:
		return prefix, field.ErrorList{field.Invalid(path, value, fmt.Sprintf("must be a /%d to a /%d", minBits, maxBits))}
	}
	return prefix, nil
}

func validateKubelet(path *field.Path, k *KubeletConfiguration) field.ErrorList {
	var errs field.ErrorList
	if k.MaxPods < 1 {
		errs = append(errs, field.Invalid(path.Child("maxPods"), k.MaxPods, "must be at least 1"))
	}
	errs = append(errs, metav1validation.ValidateLabels(k.Labels, path.Child("labels"))...)
	for _, label := range slices.Sorted(maps.Keys(k.Labels)) {
		if reserved(label) {
			errs = append(errs, field.Invalid(path.Child("labels"), label,
				"a node may not give itself this label of Kubernetes' own; set it with kubectl label node"))
		}
	}
	for i, pattern := range k.AllowedUnsafeSysctls {
		if _, err := sysctl.NewAllowlist([]string{pattern}); err != nil {
			errs = append(errs, field.Invalid(path.Child("allowedUnsafeSysctls").Index(i), pattern,
				err.Error()+"; it must be a sysctl that each Pod has for itself, such as kernel.msgmax, or the beginning of some, such as net.core.*"))
		}
	}
	return append(errs, validateImages(path, k)...)
}

// imagePolicies are upstream's.
var imagePolicies = []kubeletconfig.ImagePullCredentialsVerificationPolicy{
	kubeletconfig.NeverVerify, kubeletconfig.NeverVerifyPreloadedImages,
	kubeletconfig.NeverVerifyAllowlistedImages, kubeletconfig.AlwaysVerify,
}

func validateImages(path *field.Path, k *KubeletConfiguration) field.ErrorList {
	var errs field.ErrorList
	policy := kubeletconfig.ImagePullCredentialsVerificationPolicy(k.ImagePullCredentialsVerificationPolicy)
	if !slices.Contains(imagePolicies, policy) {
		errs = append(errs, field.NotSupported(path.Child("imagePullCredentialsVerificationPolicy"), policy, imagePolicies))
	}
	list := path.Child("preloadedImagesVerificationAllowlist")
	if len(k.PreloadedImagesVerificationAllowlist) > 0 && policy != kubeletconfig.NeverVerifyAllowlistedImages {
		errs = append(errs, field.Forbidden(list,
			fmt.Sprintf("only the imagePullCredentialsVerificationPolicy %s reads it", kubeletconfig.NeverVerifyAllowlistedImages)))
	}
	for i, pattern := range k.PreloadedImagesVerificationAllowlist {
		if err := pullmanager.ValidateAllowlistImagesPatterns([]string{pattern}); err != nil {
			errs = append(errs, field.Invalid(list.Index(i), pattern,
				err.Error()+"; it must be an image without tag and digest, such as registry.example/team/app, or the beginning of some, such as registry.example/team/*"))
		}
	}
	return errs
}

// reserved reports whether kube-apiserver's admission plugin NodeRestriction refuses the label from
// a node agent: it would refuse the Node with it, for ever.
func reserved(label string) bool {
	domain, _, qualified := strings.Cut(label, "/")
	for _, own := range []string{"kubernetes.io", "k8s.io"} {
		if qualified && (domain == own || strings.HasSuffix(domain, "."+own)) {
			return !kubeletapis.IsKubeletLabel(label)
		}
	}
	return false
}
