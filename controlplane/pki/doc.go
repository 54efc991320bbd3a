// Package pki issues the certificates of one cluster: its authorities, one identity per component, and the kubeconfigs that
// carry them. It is the only writer of every file it names.
//
// A Store is a directory. Each key pair is one PEM file, NAME.pem, mode 0600, that holds the key and the certificate: one
// file can be replaced atomically, two cannot, and a crash between the two would leave a cluster that does not start. Go's
// TLS code, and so every part of Kubernetes, takes such a file as certificate file and as key file.
//
// What is renewed when is decided in plan.go: leaf certificates live for a year and are renewed past two thirds of it.
// Whoever issues them asks again from time to time, and whoever uses them follows the file. Authorities and the service-account key are never replaced:
// everything that was ever issued hangs on them.
package pki
