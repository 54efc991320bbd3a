// Package containerd runs the bundled container runtime: it writes containerd's configuration,
// starts containerd as a child process or adopts a running one, restarts it when it ends, and stops
// it together with its containers, mounts and run-time files. It also imports, lists and pulls
// images.
//
// containerd has a session of its own, so that it and all containers survive a crash of Flyball.
// Containers run under their shims, so that they survive a crash of containerd. Only Stop ends
// them.
//
// The node agent creates containers over CRI, the node network writes the CNI configuration in
// Config.CNIConfDir, and the user the files in Config.RegistryHosts. This package is the one writer
// of Config.RootDir, Config.StateDir and Config.LogFile.
//
//	config.go  Config, and containerd's configuration file
//	run.go     starts, adopts and restarts containerd
//	process.go processes, and how to find those of ours
//	stop.go    ends containers and removes run-time files
//	images.go  imports, lists and pulls images; archive.go reads image archives
//	log.go     limits the size of the log
package containerd
