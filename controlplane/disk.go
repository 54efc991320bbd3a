package controlplane

import (
	"context"

	"k8s.io/klog/v2"

	"flyball.dev/controlplane/space"
)

// Bytes that are allocated in advance. The database needs space for what is written before writes
// are refused, and for etcd's own writes: it compacts every five minutes.
const (
	databaseReserve = 32 << 20
	logReserve      = 64 << 10
)

// guardDisk lets kube-apiserver refuse writes while etcd's file system has no space, from when
// bootstrap is up: refusing a write of kube-apiserver's start would end the process.
func (s *server) guardDisk(ctx context.Context, up func(), bootstrap *started) error {
	up() // there was enough space to start
	select {
	case <-bootstrap.up:
	case <-ctx.Done():
	}
	if !s.cfg.unguarded {
		s.guard.Run(ctx)
	}
	<-ctx.Done()
	return nil
}

func newGuard(cfg Config) *space.Guard {
	reserves := map[string]int64{cfg.database(): databaseReserve}
	if cfg.LogFile != "" {
		reserves[cfg.LogFile] = logReserve
	}
	return &space.Guard{Dir: cfg.etcdDir(), Reserves: reserves, Changed: func(err error) { reportSpace(cfg, err) }}
}

// reportSpace reports that there is no space, or with a nil error that there is space again.
func reportSpace(cfg Config, short error) {
	if short != nil {
		klog.Error(short)
		cfg.progress(PartDisk, StateDown, short)
		return
	}
	klog.Warningf("There is space again on the file system of %s: everything is written again", cfg.etcdDir())
	cfg.progress(PartDisk, StateUp, nil)
}
