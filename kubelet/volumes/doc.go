// Package volumes puts the volumes of a Pod onto the host and takes them away
// again, and keeps contents that come from the API (configMap, secret,
// downwardAPI, projected, service-account tokens) fresh while the Pod lives.
//
// It is the only writer below RootDir/pods/UID. The layout is upstream's:
//
//	RootDir/pods/UID/volumes/kubernetes.io~KIND/NAME   one directory per volume
//	RootDir/pods/UID/volume-subpaths/VOLUME/CONTAINER/INDEX
//	RootDir/pods/UID/etc-hosts
//	RootDir/pods/UID/containers/NAME/ATTEMPT           termination log
//
// Nothing in memory is needed to unmount: Unmount reads the directory and the
// kernel's mount table.
//
// ConfigMaps and Secrets are watched one by one, for as long as a mounted Pod
// refers to them. The same objects serve the environment of containers (package
// containers) and image pulls (package images). ClusterTrustBundles and this
// node's PodCertificateRequests are watched while a projected volume needs them.
package volumes
