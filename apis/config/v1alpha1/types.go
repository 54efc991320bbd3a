// Package v1alpha1 holds the configuration file of `flyball up`, `flyball server` and `flyball
// agent`: its types, its defaults and its validation. It reads no flag (cmd/flyball does) and
// nothing of the host (package host does).
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// GroupVersion is the apiVersion of the file.
	GroupVersion = "config.flyball.dev/v1alpha1"
	// Kind is the kind of the file.
	Kind = "FlyballConfiguration"
)

// FlyballConfiguration configures the server and the node agent of one host. Every field is
// optional. docs/configuration.md documents each field for users; a test keeps the two together.
type FlyballConfiguration struct {
	metav1.TypeMeta `json:",inline"`

	// DataDir is where everything lies that must survive a restart, apart from the files of Pods
	// (kubelet.rootDir). Default: /var/lib/flyball.
	DataDir string `json:"dataDir,omitempty"`

	// NodeName is the name of this host's Node: a DNS subdomain of at most 63 characters. It cannot
	// change once the data directory exists. Default: the host name, in lower case and without a
	// trailing dot.
	NodeName string `json:"nodeName,omitempty"`
	// NodeIP is the IPv4 address at which others reach this host.
	// Default: the address that the default route leaves from.
	NodeIP string `json:"nodeIP,omitempty"`

	// Server is the URL of the server whose cluster this host joins, such as
	// https://192.0.2.1:6443. Only `flyball agent` has one. Default: empty, the server is on this
	// host, or this host has joined already.
	Server string `json:"server,omitempty"`
	// Token is what this host joins with, as `flyball token create` prints it. It is not needed
	// again after the first start. Default: empty.
	Token string `json:"token,omitempty"`

	// BindAddress is the address that the API server and the node agent listen on. Default:
	// 0.0.0.0.
	BindAddress string `json:"bindAddress,omitempty"`
	// Port is the port of the API server. Default: 6443.
	Port int `json:"port,omitempty"`

	// ClusterCIDR is the range Pods get their addresses from; each node gets a /24 of it. It cannot
	// change once the data directory exists. Default: 10.42.0.0/16.
	ClusterCIDR string `json:"clusterCIDR,omitempty"`
	// ServiceCIDR is the range Services get their addresses from. It cannot change once the data
	// directory exists. Default: 10.43.0.0/16.
	ServiceCIDR string `json:"serviceCIDR,omitempty"`
	// ClusterDomain is the DNS domain of the cluster. It cannot change once the data directory
	// exists. Default: cluster.local.
	ClusterDomain string `json:"clusterDomain,omitempty"`
	// ClusterDNS is the address of the cluster's DNS server, within ServiceCIDR. It cannot change
	// once the data directory exists. Default: the tenth address of ServiceCIDR.
	ClusterDNS string `json:"clusterDNS,omitempty"`

	// CRIEndpoint is the socket of another container runtime to use instead of the bundled
	// containerd, such as unix:///run/crio/crio.sock. Default: empty, the bundled one.
	CRIEndpoint string `json:"criEndpoint,omitempty"`
	// CNIConfDir and CNIBinDir are the directories in which the runtime at CRIEndpoint reads its
	// CNI configuration and plugins. They are only for such a runtime. Default: /etc/cni/net.d and
	// /opt/cni/bin.
	CNIConfDir string `json:"cniConfDir,omitempty"`
	CNIBinDir  string `json:"cniBinDir,omitempty"`

	// Controllers configures the server's own loops.
	Controllers ControllersConfiguration `json:"controllers,omitzero"`
	// Kubelet configures the node agent.
	Kubelet KubeletConfiguration `json:"kubelet,omitzero"`
	// Storage configures the storage driver and the snapshot controller.
	Storage StorageConfiguration `json:"storage,omitzero"`
	// Logging configures what is logged.
	Logging LoggingConfiguration `json:"logging,omitzero"`
}

// ControllersConfiguration configures the server's own loops.
type ControllersConfiguration struct {
	// Kinds are the API groups and versions whose Deployments and ReplicaSets the server
	// reconciles: apps/v1, apps.flyball.dev/v1alpha1, or both. Where the second is left out, the
	// server does not define its kinds either, and the Helm chart may bring both. Default: both.
	Kinds []string `json:"kinds,omitempty"`
}

// KubeletConfiguration configures the node agent.
type KubeletConfiguration struct {
	// RootDir is where the node agent keeps the files of Pods, and where drivers have their sockets.
	// Manifests of CSI drivers and device plugins name the default. Default: /var/lib/kubelet.
	RootDir string `json:"rootDir,omitempty"`
	// Port is the port of the node agent's HTTPS server. Default: 10250.
	Port int `json:"port,omitempty"`
	// MaxPods is how many Pods may run on this node at once. Default: 110.
	MaxPods int `json:"maxPods,omitempty"`
	// Labels are put on the Node when it registers. Default: none.
	Labels map[string]string `json:"labels,omitempty"`
	// AllowedUnsafeSysctls are sysctls that Pods may set besides those that are safe, by name or by
	// what the name begins with, such as net.core.*. Default: none.
	AllowedUnsafeSysctls []string `json:"allowedUnsafeSysctls,omitempty"`
	// ImagePullCredentialsVerificationPolicy says for which images that are on the node a Pod must
	// have the credentials that they were pulled with, as the kubelet's field of this name:
	// NeverVerify, NeverVerifyPreloadedImages, NeverVerifyAllowlistedImages or AlwaysVerify.
	// Default: NeverVerifyPreloadedImages.
	ImagePullCredentialsVerificationPolicy string `json:"imagePullCredentialsVerificationPolicy,omitempty"`
	// PreloadedImagesVerificationAllowlist are images that are for all Pods under
	// NeverVerifyAllowlistedImages: names without tag and digest, as Pods write them, or what they
	// begin with and /*. Default: none.
	PreloadedImagesVerificationAllowlist []string `json:"preloadedImagesVerificationAllowlist,omitempty"`
}

// StorageConfiguration configures the storage driver local.flyball.dev and the snapshot controller.
type StorageConfiguration struct {
	// Driver runs the driver on this node, and on a server creates its StorageClass local and what
	// the drivers of nodes may do. Volumes that exist are not mounted without it. Default: true.
	Driver *bool `json:"driver,omitempty"`
	// Snapshots runs the snapshot controller on the server, with its CRDs. Set it to false where
	// another one is installed. Default: true.
	Snapshots *bool `json:"snapshots,omitempty"`
	// Paths are directories on this node, besides the data directory, that a StorageClass may name
	// for its volumes with the parameter path: each the mount of another disk, say. Default: none.
	Paths []string `json:"paths,omitempty"`
}

// LoggingConfiguration configures what is logged.
type LoggingConfiguration struct {
	// Verbosity is the level of detail, 0 to 10. At 0 a healthy idle cluster logs nothing: only
	// warnings and errors are written. Default: 0.
	Verbosity int `json:"verbosity,omitempty"`
}
