package join

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
)

const (
	// requestTimeout limits one request: the server may not answer.
	requestTimeout = 10 * time.Second
	// startTimeout is how long, in all, requests are retried while a server answers that has not
	// read its cluster, tokens and roles yet: hosts are often started together.
	startTimeout = 30 * time.Second
	retryEvery   = 500 * time.Millisecond
)

// session is one attempt to join.
type session struct {
	cfg      Config
	deadline time.Time // of retries
	// anonymous is a client without credentials: a server that does not know a token refuses every
	// request that carries it. Nil while the server is not trusted.
	anonymous kubernetes.Interface
}

// retry repeats a request while the server is starting. It returns the last answer.
func retry[T any](ctx context.Context, s *session, request func(context.Context) (T, error)) (T, error) {
	// final is set once the server is ready: it has read its tokens, so the next answer about a
	// token is true.
	for final := false; ; {
		one, cancel := context.WithTimeout(ctx, s.cfg.requestTimeout)
		answer, err := request(one)
		cancel()
		unknown := apierrors.IsUnauthorized(err)
		if !starting(err) || final && unknown || !time.Now().Before(s.deadline) {
			return answer, err
		}
		final = unknown && s.ready(ctx)
		select {
		case <-ctx.Done():
			return answer, err
		case <-time.After(s.cfg.retryEvery):
		}
	}
}

// starting reports whether an API server that is starting may answer so: it may not have read its
// tokens and roles yet, and the control plane may not have created those for joining.
func starting(err error) bool {
	switch {
	case apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err):
		return true
	case apierrors.IsUnexpectedServerError(err):
		return false // these answers do not come from an API server
	}
	return apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) || apierrors.IsNotFound(err)
}

// ready reports whether the server is ready: its caches, including that of tokens, are filled then.
func (s *session) ready(ctx context.Context) bool {
	if s.anonymous == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.requestTimeout)
	defer cancel()
	_, err := s.anonymous.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	return err == nil
}

// explain returns an error that says what the last answer means, and what to do about it.
func (s *session) explain(ctx context.Context, doing string, err error) error {
	server := s.cfg.Server
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%s: interrupted", doing)
	case apierrors.IsUnexpectedServerError(err) && !starting(err):
		return fmt.Errorf("%s: %w; is --server the URL of a Flyball server?", doing, err)
	case apierrors.IsUnauthorized(err) && s.ready(ctx):
		return fmt.Errorf("%s: the server does not accept the token %s of --token: it has expired, was deleted, or its secret is wrong; create a new one with `flyball token create` on the server",
			doing, s.cfg.Token.ID)
	case apierrors.IsUnauthorized(err) && s.anonymous != nil:
		return fmt.Errorf("%s: the server at %s does not know its tokens: it has not finished starting within %s; try again once `flyball status` there shows every component up",
			doing, server, s.cfg.startTimeout)
	case starting(err):
		return fmt.Errorf("%s: for %s, %s has answered: %w; try again once `flyball status` there shows every component up; if it does, is --server a Flyball server of this version?",
			doing, s.cfg.startTimeout, server, err)
	case apierrors.ReasonForError(err) != "":
		return fmt.Errorf("%s: %w", doing, err)
	}
	return unreachable(server, err, s.cfg.requestTimeout, time.Now())
}
