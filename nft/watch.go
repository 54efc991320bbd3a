package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// watched are the events after which a chain may drop what it did not, or a rule may be gone. The
// many about elements of sets are not among them.
var watched = []uint16{
	unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE, unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN,
	unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE,
}

// Watch is a subscription to changes of tables, chains and rules, by any program.
type Watch struct{ conn *netlink.Conn }

// Watch subscribes to the changes from now on. Run must be called to end it.
func (k Kernel) Watch() (*Watch, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: k.NetNS})
	if err != nil {
		return nil, fmt.Errorf("opening netfilter's events: %w", err)
	}
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribing to the events of nftables: %w", err), conn.Close())
	}
	return &Watch{conn}, nil
}

// Run puts an item into changed, which has space for one, after each change until ctx ends.
func (w *Watch) Run(ctx context.Context, changed chan<- struct{}) error {
	stop := context.AfterFunc(ctx, func() { _ = w.conn.Close() })
	defer func() {
		if stop() {
			_ = w.conn.Close()
		}
	}()
	for {
		messages, err := w.conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // some were lost
		case err != nil:
			return fmt.Errorf("receiving the events of nftables: %w", err)
		case !slices.ContainsFunc(messages, isWatched):
			continue
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

func isWatched(m netlink.Message) bool {
	kind := uint16(m.Header.Type)
	return kind>>8 == unix.NFNL_SUBSYS_NFTABLES && slices.Contains(watched, kind&0xff)
}
