// Package approver approves the certificates that kubelets serve with: certificate signing requests for the signer
// kubernetes.io/kubelet-serving. Upstream signs them but approves none, because whether a machine may speak for an address
// is a question to whoever hands out addresses. Here the answer is the Node: a request is approved if the node itself made
// it, and if it asks for nothing but names and addresses that its Node reports, that no other Node reports and that are
// nobody else's by their nature.
//
// Everything else is left to an administrator (kubectl certificate approve), and an Event on the request says why. A
// request that may become right is looked at again when a Node changes: the kubelet asks before its Node is there. If it
// goes on waiting, because another Node reports its address, say, an Event says that too.
//
// The loop reads CertificateSigningRequests and Nodes. It is the one writer of their Approved condition for this signer.
// The client certificates of nodes are approved by upstream's csrapproving controller.
package approver
