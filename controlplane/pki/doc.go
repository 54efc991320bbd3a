// Package pki issues the certificates of one cluster: its CAs, one identity per component, and the
// kubeconfigs that carry them. It is the only writer of every file it names.
//
// A Store is a directory. Each key pair is one PEM file, NAME.pem, mode 0600, that holds the key
// and the certificate: one file can be replaced atomically, two cannot, and a crash between the two
// would leave a cluster that does not start. Go's TLS code, and therefore every Kubernetes
// component, takes such a file as certificate file and as key file.
//
// plan.go decides when a certificate is renewed: leaf certificates are valid for a year and renewed
// after two thirds of it. The issuer calls Issue again from time to time, and the clients read the
// file again. CAs and the service-account key are never replaced: everything that was ever issued
// depends on them.
package pki
