package checkpoint

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

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
