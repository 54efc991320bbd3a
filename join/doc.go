// Package join adds this host as a node to a cluster whose server runs on another host, and renews
// the node's certificates.
//
// Join connects to the server with a token. The token pins the public key of the cluster's CA, so
// that the server can be trusted. It is also an upstream bootstrap token, so that the server
// accepts a certificate signing request for the node's client certificate (signer
// kubernetes.io/kube-apiserver-client-kubelet, approved by upstream's csrapproving controller).
// After that the token is not needed again: all that a restart needs is in the agent's directory.
//
// Certificates renews that certificate and obtains the kubelet's serving certificate (signer
// kubernetes.io/kubelet-serving, approved by package controlplane/approver), both with upstream's
// certificate managers.
//
// The package is the one writer of the agent's directory on a host that has joined:
//
//	cluster.yaml              the cluster's settings, and the node's name and addresses; written last
//	client-ca.crt             the CA of server and clients
//	kubelet-client-*.pem      the node's client certificate and its key
//	kubelet-server-*.pem      the kubelet's serving certificate and its key; *.broken could not be used
//	kubelet|proxy|dns.kubeconfig
//
// On the server's own host the control plane writes that directory, and this package is not used.
// Package controlplane/tokens creates tokens.
package join
