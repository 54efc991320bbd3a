// Package volumes puts the volumes of a Pod onto the host and removes them again, and keeps
// contents that come from the API (configMap, secret, downwardAPI, projected, service account
// tokens) fresh while the Pod lives. Each kind of volume is a Plugin, in a file of its own.
//
// A volume is published to each Pod that wants it, and unpublished when the Pod has ended. For
// volumes of a StagingPlugin, which Pods of the node share, package plan decides about that: they
// are staged before and unstaged after, wait for their attachment, and are recorded on disk.
//
// A claim is replaced by what it is bound to before a plugin is chosen (package claims). Everything
// of its volume is called after the PersistentVolume; NAME below is that or the volume's name in
// the Pod's spec.
//
// It is the only writer below RootDir/pods/UID. The layout is upstream's:
//
//	RootDir/pods/UID/volumes/kubernetes.io~KIND/NAME   one directory per volume
//	RootDir/pods/UID/volumeDevices/PLUGIN/NAME         a block device of a StagingPlugin
//	RootDir/pods/UID/volume-subpaths/NAME/CONTAINER/INDEX
//	RootDir/pods/UID/etc-hosts
//	RootDir/pods/UID/containers/NAME/ATTEMPT           termination log
//	RootDir/plugins/PLUGIN/HASH/globalmount            a staged volume
//	RootDir/volumes/{staged,published}-HASH.json       its record, and that of each use
//
// Nothing in memory is needed to unmount: the records, the Pod's directory and the kernel's mount
// table suffice. No directory is removed as long as anything is mounted in it.
//
// ConfigMaps and Secrets are watched one by one, for as long as a mounted Pod refers to them. They
// also serve the environment of containers (package containers) and image pulls (package images).
package volumes
