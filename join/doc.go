// Package join makes this machine a node of a cluster whose server runs on another one, and keeps it one.
//
// Join meets the server for the first time: the token pins the public key of the cluster's authority, so that the server
// can be trusted, and is an upstream bootstrap token, so that the server trusts this machine far enough to take a
// certificate signing request. What comes back is the node's client certificate (signer
// kubernetes.io/kube-apiserver-client-kubelet, approved by upstream's csrapproving controller), and with it the token has
// done its work: everything that a restart needs lies in the agent's directory then.
//
// Certificates renews that certificate and obtains the one that the kubelet's server shows (signer
// kubernetes.io/kubelet-serving, approved by the server's own approver), both with upstream's certificate managers.
//
// The package is the one writer of the agent's directory on a machine that has joined:
//
//	cluster.yaml              which cluster, what the node has to know of it, and its own address; written last
//	client-ca.crt             the authority of server and clients
//	kubelet-client-*.pem      the node's client certificate and its key
//	kubelet-server-*.pem      the kubelet's serving certificate and its key; *.broken is one that could not be used
//	kubelet|proxy|dns.kubeconfig
//
// On the server's own machine the control plane writes that directory, and nothing here is used. Making tokens is left to
// the control plane.
package join
