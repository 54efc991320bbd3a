package programs

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/samber/lo"
	"k8s.io/apiserver/pkg/storage/storagebackend"

	"flyball.dev/controlplane/checkpoint"
)

// Paths of a kube-apiserver for package flyballtest. Requests are POSTs with the server's token as
// bearer token. The response is a Checkpoint.
const (
	CheckpointPath = "/flyball/checkpoint"
	// RestorePath has the parameter revision.
	RestorePath = "/flyball/restore"
)

// Checkpoint is a state of the cluster.
type Checkpoint struct {
	Revision int64 `json:"revision"`
	// Changed is how many objects had to be written or deleted to restore it.
	Changed int `json:"changed"`
}

// drainTimeout is how long new writes are admitted while others are in flight: a webhook may write
// within one.
const drainTimeout = 2 * time.Second

// checkpoints takes and restores checkpoints of a running server for clients with the token.
type checkpoints struct {
	token   string
	storage storagebackend.Config
	// writing is read-locked by each request that writes, and locked by a restore.
	writing sync.RWMutex
}

// wrap serves checkpoints before all other handlers. Without a token it serves none.
func (c *checkpoints) wrap(handler http.Handler) http.Handler {
	if c.token == "" {
		return handler
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == CheckpointPath || r.URL.Path == RestorePath:
			c.serve(w, r)
		case writes(r):
			c.writing.RLock()
			defer c.writing.RUnlock()
			handler.ServeHTTP(w, r)
		default:
			handler.ServeHTTP(w, r)
		}
	})
}

// writes reports whether a request may change an object. Streams to Pods and Services are POSTs
// too, but long-running.
func writes(r *http.Request) bool {
	methods := []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	return slices.Contains(methods, r.Method) &&
		lo.None(strings.Split(r.URL.Path, "/"), []string{"exec", "attach", "portforward", "proxy"})
}

func (c *checkpoints) serve(w http.ResponseWriter, r *http.Request) {
	if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+c.token)) != 1 {
		http.Error(w, "checkpoints need the token that the server was started with", http.StatusForbidden)
		return
	}
	if r.Method != http.MethodPost {
		http.Error(w, "post to "+r.URL.Path, http.StatusMethodNotAllowed)
		return
	}
	answer, err := c.answer(r)
	var body []byte
	if err == nil {
		body, err = json.Marshal(answer)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // fails if the client has left
}

func (c *checkpoints) answer(r *http.Request) (Checkpoint, error) {
	store, err := checkpoint.Open(c.storage)
	if err != nil {
		return Checkpoint{}, err
	}
	defer store.Close()
	if r.URL.Path == CheckpointPath {
		revision, err := store.Revision(r.Context())
		return Checkpoint{Revision: revision}, err
	}
	revision, err := strconv.ParseInt(r.FormValue("revision"), 10, 64)
	if err != nil || revision <= 0 {
		return Checkpoint{}, fmt.Errorf("reading the revision: %q is not one", r.FormValue("revision"))
	}
	if err := c.stopWrites(r.Context()); err != nil {
		return Checkpoint{}, err
	}
	defer c.writing.Unlock()
	changed, err := store.Restore(r.Context(), revision)
	return Checkpoint{Revision: revision, Changed: changed}, err
}

// stopWrites returns when no request writes. Later ones wait.
func (c *checkpoints) stopWrites(ctx context.Context) error {
	for deadline := time.Now().Add(drainTimeout); time.Now().Before(deadline); {
		if c.writing.TryLock() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for requests that write: %w", context.Cause(ctx))
		case <-time.After(time.Millisecond):
		}
	}
	c.writing.Lock()
	return nil
}
