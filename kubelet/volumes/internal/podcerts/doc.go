// Package podcerts gets certificates for Pods, one for each podCertificate source of a projected
// volume: it makes a key, creates a PodCertificateRequest for the signer, and does so again, with a
// new key, when the certificate is due for a refresh (KEP-4317).
//
// It writes PodCertificateRequests of this node's Pods, and nothing else; the signer writes their
// status, and upstream's controllers remove them. They are watched while a Pod has such a source.
// Keys are in memory only: after a restart of the agent each Pod gets a new key and certificate,
// and has the old files until then.
//
// Upstream's manager (pkg/kubelet/podcertificate) does not report answers, makes all keys in
// one goroutine, and its event handler panics on a deletion that the watch has missed.
package podcerts
