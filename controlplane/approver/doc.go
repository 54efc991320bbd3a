// Package approver approves kubelets' serving certificates: CertificateSigningRequests for the
// signer kubernetes.io/kubelet-serving. Upstream signs them but approves none, because it does not
// know which node an address belongs to. Here the Node decides: a request is approved if the node
// itself made it, and if all its names and addresses are reported by its Node, by no other Node,
// and are none of the API server, a Service or a Pod.
//
// The storage driver of a node gets its client certificate (signer kubernetes.io/kube-apiserver-client)
// if the node itself asks for the one that is named after it. Requests for that signer with other
// names are ignored.
//
// All other requests are left to an administrator (kubectl certificate approve), and an Event on
// the request says why. A request that may become right is reconciled again when a Node changes,
// since the kubelet makes it before its Node exists. If it must wait for longer, for example
// because another Node reports its address, an Event says that too.
//
// The loop reads CertificateSigningRequests and Nodes. It is the one writer of the Approved
// condition for the first signer. Upstream's csrapproving controller approves the client certificates of
// nodes.
package approver
