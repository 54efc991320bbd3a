package space

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// pollInterval is how often the file system is asked: it has no event for filling up.
const pollInterval = time.Second

// reason is that of a refusal; metav1 has none for it.
const reason metav1.StatusReason = "InsufficientStorage"

// Guard refuses what a file system without space could not keep.
type Guard struct {
	// Dir is where etcd writes, whose file system is watched.
	Dir string
	// Reserves are files and how much must be allocated beyond their present size, in bytes.
	Reserves map[string]int64
	// Changed is called with an Error when writes begin to be refused, and with nil when all are carried out again.
	Changed func(error)

	// refusal is nil while everything is written.
	refusal atomic.Pointer[refusal]
}

type refusal struct {
	level Level
	err   error
}

// Run watches the file system until ctx ends. Nothing is refused before. What is refused at the end
// stays refused: clients that have yet to stop repeat their requests, and etcd must not fail on them.
func (g *Guard) Run(ctx context.Context) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for state := (State{}); ; {
		before := state.Level
		state = g.sync(state, time.Now())
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

func (g *Guard) sync(state State, now time.Time) State {
	free, err := Stat(g.Dir)
	if err != nil {
		return state // whatever that is, it is no want of space
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

// reserve allocates what is needed later, unless the reserve itself would have writes refused.
func (g *Guard) reserve() {
	for path, more := range g.Reserves {
		free, err := Stat(filepath.Dir(path))
		if err != nil || free.Bytes < scarce+2*uint64(more) { // Reserve takes twice as much
			continue
		}
		_ = Reserve(path, more) // without it, less is possible when there is no space
	}
}

// Wrap refuses writes on their way to the API, after they were authorized.
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
		}) // the client went away
	})
}

func write(ctx context.Context, info *apirequest.RequestInfo) Write {
	w := Write{Verb: info.Verb, Group: info.APIGroup, Resource: info.Resource, Subresource: info.Subresource}
	if u, ok := apirequest.UserFrom(ctx); ok {
		w.User = u.GetName()
	}
	return w
}

// Await returns nil once there is enough to start with, or ctx's error. It calls short with an Error
// while there is not.
func Await(ctx context.Context, dir string, short func(error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for reported := false; ; reported = true {
		there := existing(dir)
		free, err := Stat(there)
		if err != nil {
			return nil // the next write there has a better error
		}
		missing := shortage(dir, free, func() error { return Probe(there, Enough) })
		if missing == nil {
			return nil
		}
		if !reported {
			short(missing)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// shortage returns what is missing to start with, or nil. Waiting helps against nothing else: what
// probe finds of other kinds, a read-only file system for example, is left to the next write there.
func shortage(dir string, free Free, probe func() error) error {
	if free.below(Enough, enoughInodes) {
		return &Error{Dir: dir, Free: free}
	}
	if err := probe(); IsNoSpace(err) {
		return &Error{Dir: dir, Free: free, Err: err}
	}
	return nil
}

// existing is dir, or the nearest directory above it that is there already.
func existing(dir string) string {
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}
