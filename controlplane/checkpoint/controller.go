package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"k8s.io/apiserver/pkg/storage/storagebackend"
)

const (
	dialTimeout = 5 * time.Second
	// rounds is how often Restore undoes the writes of others before it gives up.
	rounds = 10
)

// Store is the etcd of a kube-apiserver.
type Store struct {
	client *clientv3.Client
	prefix string
}

// Open connects to etcd as a kube-apiserver with this configuration does.
func Open(config storagebackend.Config) (*Store, error) {
	t := config.Transport
	cfg := clientv3.Config{Endpoints: t.ServerList, DialTimeout: dialTimeout, Logger: zap.NewNop()}
	if t.CertFile != "" || t.KeyFile != "" || t.TrustedCAFile != "" {
		files := transport.TLSInfo{CertFile: t.CertFile, KeyFile: t.KeyFile, TrustedCAFile: t.TrustedCAFile}
		var err error
		if cfg.TLS, err = files.ClientConfig(); err != nil {
			return nil, fmt.Errorf("reading etcd's certificates: %w", err)
		}
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("connecting to etcd: %w", err)
	}
	return &Store{client: client, prefix: strings.TrimRight(config.Prefix, "/") + "/"}, nil
}

// Close ends the connection.
func (s *Store) Close() error { return s.client.Close() }

// Revision returns the revision of the present state.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	got, err := s.client.Get(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return 0, fmt.Errorf("asking etcd for its revision: %w", err)
	}
	return got.Header.Revision, nil
}

// Restore restores the state of revision, and returns how many objects it wrote and deleted.
func (s *Store) Restore(ctx context.Context, revision int64) (changed int, err error) {
	then, err := s.read(ctx, clientv3.WithRev(revision))
	if err != nil {
		return 0, err
	}
	for round, quiet := 0, false; round < rounds; round++ {
		now, err := s.read(ctx)
		if err != nil {
			return changed, err
		}
		first, rest := plan(s.prefix, then, now)
		if len(first)+len(rest) == 0 {
			if quiet {
				return changed, nil
			}
			quiet = true // a second round finds writes that were on their way to etcd when their senders stopped
			continue
		}
		quiet = false
		for _, changes := range [][]change{first, rest} {
			if err := s.apply(ctx, changes); err != nil {
				return changed, err
			}
		}
		changed += len(first) + len(rest)
	}
	return changed, errors.New("restoring the cluster: another client keeps writing to etcd")
}

func (s *Store) read(ctx context.Context, at ...clientv3.OpOption) ([]record, error) {
	got, err := s.client.Get(ctx, s.prefix, append(at, clientv3.WithPrefix())...)
	if errors.Is(err, rpctypes.ErrCompacted) {
		return nil, errors.New("reading the checkpoint from etcd: it was compacted; start kube-apiserver with --etcd-compaction-interval=0")
	}
	if err != nil {
		return nil, fmt.Errorf("reading etcd: %w", err)
	}
	records := make([]record, 0, len(got.Kvs))
	for _, kv := range got.Kvs {
		records = append(records, record{key: string(kv.Key), value: kv.Value, lease: kv.Lease})
	}
	return records, nil
}

// parallel is how many writes are under way at a time. Each waits for etcd's log, which writes
// several at once.
const parallel = 32

// apply writes the changes, each in a revision of its own: caches order the objects of a kind by
// it.
func (s *Store) apply(ctx context.Context, changes []change) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, c := range changes {
		g.Go(func() error {
			if c.delete {
				if _, err := s.client.Delete(ctx, c.key); err != nil {
					return fmt.Errorf("deleting %s: %w", c.key, err)
				}
				return nil
			}
			_, err := s.client.Put(ctx, c.key, string(c.value), clientv3.WithLease(clientv3.LeaseID(c.lease)))
			if errors.Is(err, rpctypes.ErrLeaseNotFound) {
				// The lease of an object that expires, an Event, has ended. The object stays as
				// long as the cluster.
				_, err = s.client.Put(ctx, c.key, string(c.value))
			}
			if err != nil {
				return fmt.Errorf("writing %s: %w", c.key, err)
			}
			return nil
		})
	}
	return g.Wait()
}
