package controlplane

import (
	"k8s.io/klog/v2"

	"flyball.dev/controlplane/space"
)

// What is allocated ahead of need, in bytes. The database needs what may be written before writes are refused, and a place for
// what etcd does by itself: it compacts what it has every five minutes.
const (
	databaseReserve = 32 << 20
	logReserve      = 64 << 10
)

// newGuard makes what refuses writes when the file system of etcd's directory has no space.
func newGuard(cfg Config) *space.Guard {
	reserves := map[string]int64{cfg.database(): databaseReserve}
	if cfg.LogFile != "" {
		reserves[cfg.LogFile] = logReserve
	}
	return &space.Guard{Dir: cfg.etcdDir(), Reserves: reserves, Changed: func(err error) { reportSpace(cfg, err) }}
}

// reportSpace says that there is no space, or with a nil error that there is again.
func reportSpace(cfg Config, short error) {
	if short != nil {
		klog.Error(short)
		cfg.progress(PartDisk, StateDown, short)
		return
	}
	klog.Warningf("There is space again on the file system of %s: everything is written again", cfg.etcdDir())
	cfg.progress(PartDisk, StateUp, nil)
}
