package controlplane

import (
	"context"
	"errors"
	"expvar"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"k8s.io/klog/v2"
)

const (
	// etcdQuota is how large the database may grow before it only accepts deletions: etcd's
	// recommended maximum.
	etcdQuota = 8 << 30
	// A member without followers needs no log for them to catch up with; the rest stays in memory
	// for nothing.
	etcdSnapshotCount, etcdCatchUpEntries = 5000, 1000
	// etcdBatchInterval and etcdBatchLimit say how long, and how many operations, the database may
	// be behind the log. The log makes a write durable before it is acknowledged, and etcd replays
	// the log when it starts. etcd's default of 100 ms costs an idle node ten times what the log
	// costs. The limit keeps reads cheap, since they search the operations that are not in the
	// database yet, and it keeps the replay short.
	etcdBatchInterval, etcdBatchLimit = 5 * time.Minute, 1000
)

// runEtcd serves the database to kube-apiserver. It is up when it accepts writes.
func (s *server) runEtcd(ctx context.Context, up func()) error {
	etcd, err := startEtcd(ctx, s.cfg)
	if err != nil {
		return err
	}
	defer etcd.Close()
	if err := etcdReady(ctx, etcd); err != nil {
		return err
	}
	if err := claimDatabase(ctx, etcd, s.cfg, s.clusterID); err != nil {
		return err
	}
	up()
	select {
	case <-ctx.Done():
		return nil
	case err := <-etcd.Err():
		return fmt.Errorf("running etcd: %w", err)
	case <-etcd.Server.StopNotify():
		return errors.New("running etcd: it stopped by itself; see the log")
	}
}

// startEtcd opens the database and starts its server. etcdReady waits until it accepts writes.
func startEtcd(ctx context.Context, cfg Config) (_ *embed.Etcd, err error) {
	dir := filepath.Dir(cfg.etcdSocket())
	for _, d := range []string{dir, cfg.etcdDir()} {
		if err := errors.Join(os.MkdirAll(d, 0o700), os.Chmod(d, 0o700)); err != nil {
			return nil, fmt.Errorf("creating etcd's directory: %w", err)
		}
	}
	if err := checkDatabase(cfg.database()); err != nil {
		return nil, err
	}
	ec := embed.NewConfig()
	ec.Name = cfg.NodeName
	ec.Dir = cfg.etcdDir()
	ec.ListenClientUrls = []url.URL{{Scheme: "unix", Path: cfg.etcdSocket()}}
	ec.AdvertiseClientUrls = ec.ListenClientUrls
	// The only member has no peers and listens for none. The address is a placeholder until a
	// second server joins.
	ec.ListenPeerUrls = nil
	ec.AdvertisePeerUrls = []url.URL{{Scheme: "unix", Path: filepath.Join(dir, "peer.sock")}}
	ec.InitialCluster = ec.InitialClusterFromName(ec.Name)
	ec.QuotaBackendBytes = etcdQuota
	ec.SnapshotCount, ec.SnapshotCatchUpEntries = etcdSnapshotCount, etcdCatchUpEntries
	ec.BackendBatchInterval, ec.BackendBatchLimit = etcdBatchInterval, etcdBatchLimit
	// kube-apiserver compacts every five minutes by itself (--etcd-compaction-interval), so etcd's
	// own compactor stays off.
	ec.EnableGRPCGateway = false
	ec.Metrics = "basic"
	hook := fatalHook{outOfSpace: cfg.OutOfSpace}
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(klogCore{}, zap.WithFatalHook(hook), zap.WithPanicHook(hook)))

	// etcd reports some errors of opening, for example data of a newer version, by a fatal log
	// entry or a panic.
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

// checkDatabase opens the database for reading and closes it again. etcd itself panics in a
// goroutine of its own if the database is damaged, and waits forever if another process has it
// open.
func checkDatabase(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil // new, or the process was killed right after creating it: etcd initializes it
	}
	var db *bbolt.DB
	if err == nil {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	}
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return fmt.Errorf("opening the database %s: another process has it open; stop that one first: %w", path, err)
	case err != nil:
		return fmt.Errorf("opening the database %s: it is damaged (%w); restore a backup", path, err)
	}
	return db.Close()
}

func etcdReady(ctx context.Context, etcd *embed.Etcd) error {
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
			return context.Cause(ctx)
		case <-tick.C:
			electAtOnce(ctx, etcd)
		}
	}
}

// electAtOnce lets an only voter elect itself at once. raft has it wait for a random fraction of a
// second; the message by which a leader hands over ends that wait. Before an election, raft reads
// the entries that are committed and not applied yet, and panics if etcd has compacted them
// meanwhile. So the message is sent only when all entries are applied. That does not change later,
// since nothing is committed without a leader.
func electAtOnce(ctx context.Context, etcd *embed.Etcd) {
	// etcd publishes the status nowhere else. If several members run in this process, it is that of
	// the newest one; the ID tells whether it is ours. Without it the election only takes longer.
	published, ok := expvar.Get("raft.status").(expvar.Func)
	if !ok {
		return
	}
	id := uint64(etcd.Server.MemberID())
	status, ok := published.Value().(raft.Status)
	if ok && status.ID == id && status.Lead == 0 && status.Applied >= status.GetCommit() && len(status.Config.Voters.IDs()) == 1 {
		_ = etcd.Server.Process(ctx, &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), To: &id, From: &id})
	}
}

// clusterKey holds the cluster's ID in etcd, outside of kube-apiserver's prefix.
const clusterKey = "/flyball.dev/cluster"

// claimDatabase compares the cluster in etcd with the one in DataDir/server, and writes its ID into
// a new database. If the directories were mixed up, kube-apiserver must not serve the database: it
// has no key for the Secrets in it.
func claimDatabase(ctx context.Context, etcd *embed.Etcd, cfg Config, clusterID string) error {
	client := v3client.New(etcd.Server)
	defer client.Close()
	got, err := client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(clusterKey), "=", 0)).
		Then(clientv3.OpPut(clusterKey, clusterID)).Else(clientv3.OpGet(clusterKey)).Commit()
	if err != nil {
		return fmt.Errorf("reading the cluster's identity from etcd: %w", err)
	}
	if got.Succeeded {
		return nil
	}
	if id := string(got.Responses[0].GetResponseRange().Kvs[0].Value); id != clusterID {
		return fmt.Errorf("checking the database %s: it belongs to cluster %s, and the other files in %s belong to cluster %s; restore one of the two from a backup",
			cfg.etcdDir(), id, cfg.server(), clusterID)
	}
	return nil
}
