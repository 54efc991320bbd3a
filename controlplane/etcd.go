package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"k8s.io/klog/v2"
)

const (
	// etcdQuota is how large the database may grow before it only accepts deletions: etcd's recommended maximum.
	etcdQuota = 8 << 30
	// A member without followers needs no log for them to catch up with; the rest stays in memory for nothing.
	etcdSnapshotCount, etcdCatchUpEntries = 5000, 100
)

// startEtcd opens the database and starts its server. It returns once the socket accepts connections, which is before etcd
// answers on them: ready does that.
func startEtcd(ctx context.Context, cfg Config) (_ *embed.Etcd, err error) {
	dir := filepath.Dir(cfg.etcdSocket())
	for _, d := range []string{dir, cfg.server("etcd")} {
		if err := errors.Join(os.MkdirAll(d, 0o700), os.Chmod(d, 0o700)); err != nil {
			return nil, fmt.Errorf("creating etcd's directory: %w", err)
		}
	}
	ec := embed.NewConfig()
	ec.Name = cfg.NodeName
	ec.Dir = cfg.server("etcd")
	ec.ListenClientUrls = []url.URL{{Scheme: "unix", Path: cfg.etcdSocket()}}
	ec.AdvertiseClientUrls = ec.ListenClientUrls
	// The only member has no peers and listens for none. The address is a placeholder until a second server joins.
	ec.ListenPeerUrls = nil
	ec.AdvertisePeerUrls = []url.URL{{Scheme: "unix", Path: filepath.Join(dir, "peer.sock")}}
	ec.InitialCluster = ec.InitialClusterFromName(ec.Name)
	ec.QuotaBackendBytes = etcdQuota
	ec.SnapshotCount, ec.SnapshotCatchUpEntries = etcdSnapshotCount, etcdCatchUpEntries
	// kube-apiserver compacts every five minutes by itself (--etcd-compaction-interval), so etcd's own compactor stays off.
	ec.EnableGRPCGateway = false
	ec.Metrics = "basic"
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(klogCore{}, zap.WithFatalHook(panicOnFatal{})))

	// etcd reports some errors of opening, for example data of a newer version, by a fatal log entry or a panic.
	defer func() {
		if p := recover(); p != nil {
			klog.FromContext(ctx).V(2).Info("etcd panicked", "stack", string(debug.Stack()))
			err = fmt.Errorf("opening the database %s: %v; it was written by a newer version or is damaged: restore a backup", ec.Dir, p)
		}
	}()
	etcd, err := embed.StartEtcd(ec)
	if err != nil {
		return nil, fmt.Errorf("opening the database %s: %w", ec.Dir, err)
	}
	return etcd, nil
}

// etcdReady returns when etcd accepts writes.
func etcdReady(ctx context.Context, etcd *embed.Etcd) error {
	// The only voter need not wait for anybody, but raft has it sit out a random part of a second before it elects itself.
	// The message by which a leader hands over makes it do so at once. It is ignored until the log is applied.
	id := uint64(etcd.Server.MemberID())
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-etcd.Server.ReadyNotify():
			return nil
		case <-etcd.Server.StopNotify():
			return errors.New("starting etcd: it stopped by itself; see the log")
		case err := <-etcd.Err():
			return fmt.Errorf("starting etcd: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if etcd.Server.Leader() == 0 && len(etcd.Server.Cluster().Members()) == 1 {
				_ = etcd.Server.Process(ctx, &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), To: &id, From: &id})
			}
		}
	}
}
