package images

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Registry is an image registry on 127.0.0.1, in memory. Container runtimes speak plain HTTP to that address.
type Registry struct {
	// Host is the first part of its images' references, such as 127.0.0.1:41234.
	Host string

	server       *http.Server
	user, secret string
	down         atomic.Bool
	requests     atomic.Int64
}

// NewRegistry starts a registry. With a user, it asks for that user and secret by basic authentication.
func NewRegistry(user, secret string) (*Registry, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting a registry: %w", err)
	}
	r := &Registry{Host: l.Addr().String(), user: user, secret: secret}
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	r.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.requests.Add(1)
		switch {
		case r.down.Load():
			http.Error(w, "the registry is down for this test", http.StatusServiceUnavailable)
		case !r.allowed(req):
			w.Header().Set("WWW-Authenticate", `Basic realm="flyball test"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
		default:
			store.ServeHTTP(w, req)
		}
	})}
	go func() { _ = r.server.Serve(l) }()
	return r, nil
}

func (r *Registry) allowed(req *http.Request) bool {
	if r.user == "" {
		return true
	}
	user, secret, ok := req.BasicAuth()
	return ok && user == r.user && subtle.ConstantTimeCompare([]byte(secret), []byte(r.secret)) == 1
}

// Push puts an image into the registry as repository, such as "team/app:1", and returns the reference to pull it by.
func (r *Registry) Push(repository string, img v1.Image) (string, error) {
	ref, err := name.NewTag(r.Host+"/"+repository, name.Insecure)
	if err != nil {
		return "", fmt.Errorf("pushing %s: %w", repository, err)
	}
	auth := authn.Anonymous
	if r.user != "" {
		auth = &authn.Basic{Username: r.user, Password: r.secret}
	}
	if err := remote.Write(ref, img, remote.WithAuth(auth)); err != nil {
		return "", fmt.Errorf("pushing %s: %w", ref, err)
	}
	return ref.Name(), nil
}

// SetDown makes the registry answer every request with 503, until it is set up again.
func (r *Registry) SetDown(down bool) { r.down.Store(down) }

// Requests returns how many requests have arrived: a test tells by it whether something was pulled.
func (r *Registry) Requests() int64 { return r.requests.Load() }

// Close ends the registry.
func (r *Registry) Close() error {
	if err := r.server.Close(); err != nil {
		return fmt.Errorf("closing the registry: %w", err)
	}
	return nil
}
