// Package podcerts gets certificates for Pods, one for each podCertificate source
// of a projected volume: it makes a key, asks a signer by a
// PodCertificateRequest, and asks anew, with a new key, when the certificate is
// to be refreshed (KEP-4317).
//
// It writes PodCertificateRequests of this node's Pods, and nothing else; their
// status is the signer's, and the API server's controllers remove them. What they
// answer is watched while a Pod has such a source. Keys are kept in memory only:
// after a restart of the agent each Pod gets a new key and certificate, and has
// the old files until then.
package podcerts
