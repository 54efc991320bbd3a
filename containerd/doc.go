// Package containerd keeps the bundled container runtime running: it writes containerd's configuration, starts containerd
// as a child process or adopts the one that outlived the last Flyball, restarts it when it dies, and ends it with
// everything it left behind. It also imports, lists and pulls images.
//
// containerd lives in its own session, so that the end of Flyball, however sudden, ends no container; and containers
// live under their shims, so that the end of containerd ends none either. Stop alone ends all of them.
//
// The room leaves to others: which containers there are (the node agent, over CRI), the CNI configuration in
// Config.CNIConfDir (the node network), the content of Config.RegistryHosts (the user). It is the one writer of
// Config.RootDir, Config.StateDir and Config.LogFile.
package containerd
