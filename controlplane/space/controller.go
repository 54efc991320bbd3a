package space

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// pollInterval is how often the free space is read: file systems have no event for it.
const pollInterval = time.Second

// Guard refuses writes that a file system without space could not store.
type Guard struct {
	// Dir is etcd's directory, whose file system is observed.
	Dir string
	// Reserves are files, and the bytes to allocate beyond the present size of each.
	Reserves map[string]int64
	// Changed is called with an Error when writes begin to be refused, and with nil when all are
	// admitted again.
	Changed func(error)

	// refusal is nil while every write is admitted.
	refusal atomic.Pointer[refusal]
}

type refusal struct {
	level Level
	err   error
}

// Run reconciles until ctx ends. Nothing is refused before that. A refusal at the end stays:
// clients that still run repeat their requests, and etcd must not fail on them.
func (g *Guard) Run(ctx context.Context) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for state := (State{}); ; {
		before := state.Level
		state = g.reconcile(state, time.Now())
		switch {
		case before == All && state.Level != All:
			g.Changed(g.refusal.Load().err)
		case before != All && state.Level == All:
			g.Changed(nil)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (g *Guard) reconcile(state State, now time.Time) State {
	free, err := Stat(g.Dir)
	if err != nil {
		return state // the error does not mean that space is short
	}
	state = state.Next(free, now)
	if state.Level != All {
		g.refusal.Store(&refusal{level: state.Level, err: &Error{Dir: g.Dir, Free: free}})
		return state
	}
	g.refusal.Store(nil)
	g.reserve()
	return state
}

// reserve allocates space in advance, unless that would itself cause writes to be refused.
func (g *Guard) reserve() {
	for path, more := range g.Reserves {
		free, err := Stat(filepath.Dir(path))
		if err != nil || free.Bytes < scarce+2*uint64(more) { // Reserve takes twice as much
			continue
		}
		_ = Reserve(path, more) // without it, fewer writes are possible when space is short
	}
}

// reason is that of a refusal; metav1 has none for it.
const reason metav1.StatusReason = "InsufficientStorage"

// Wrap refuses writes after they were authorized.
func (g *Guard) Wrap(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refused := g.refusal.Load()
		info, ok := apirequest.RequestInfoFrom(r.Context())
		if refused == nil || !ok || !info.IsResourceRequest || refused.level.Admits(write(r.Context(), info)) {
			api.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInsufficientStorage)
		_ = json.NewEncoder(w).Encode(metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
			Status:   metav1.StatusFailure, Code: http.StatusInsufficientStorage, Reason: reason, Message: refused.err.Error(),
		}) // fails if the client has left
	})
}

func write(ctx context.Context, info *apirequest.RequestInfo) Write {
	w := Write{Verb: info.Verb, Group: info.APIGroup, Resource: info.Resource, Subresource: info.Subresource}
	if u, ok := apirequest.UserFrom(ctx); ok {
		w.User = u.GetName()
	}
	return w
}
