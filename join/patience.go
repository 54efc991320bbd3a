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
	// answerWithin bounds one request to a server that may not be there.
	answerWithin = 10 * time.Second
	// startPatience is how long, in all, a server that answers may take until it knows its cluster, its tokens and its
	// roles: machines are often started together.
	startPatience = 30 * time.Second
	retryEvery    = 500 * time.Millisecond
)

// patience is what is left of it with one server.
type patience struct {
	cfg   Config
	until time.Time
	// anybody is a client without an identity: a server that does not know a token refuses whoever shows it, whatever is
	// asked. Nil while the server is not trusted.
	anybody kubernetes.Interface
}

// patiently repeats a request while the server answers and is not ready for it. What it answers in the end is returned.
func patiently[T any](ctx context.Context, p *patience, ask func(context.Context) (T, error)) (T, error) {
	// certain is set once the server has finished starting: asked again, it means what it says of a token.
	for certain := false; ; {
		one, cancel := context.WithTimeout(ctx, p.cfg.answer)
		answer, err := ask(one)
		cancel()
		unknown := apierrors.IsUnauthorized(err)
		if !starting(err) || certain && unknown || !time.Now().Before(p.until) {
			return answer, err
		}
		certain = unknown && p.started(ctx)
		select {
		case <-ctx.Done():
			return answer, err
		case <-time.After(p.cfg.retry):
		}
	}
}

// starting tells whether an API server that is starting gives this answer: it may not have read its tokens and roles yet,
// and the control plane may not have made those of joining.
func starting(err error) bool {
	switch {
	case apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err):
		return true
	case apierrors.IsUnexpectedServerError(err):
		return false // these answers do not come from an API server
	}
	return apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) || apierrors.IsNotFound(err)
}

// started tells whether the server says that it has finished starting: its caches, that of tokens included, are filled then.
func (p *patience) started(ctx context.Context) bool {
	if p.anybody == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.answer)
	defer cancel()
	_, err := p.anybody.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	return err == nil
}

// refused says what the last answer to doing something means, and what to do about it.
func (p *patience) refused(ctx context.Context, doing string, err error) error {
	server := p.cfg.Server
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%s: interrupted", doing)
	case apierrors.IsUnexpectedServerError(err) && !starting(err):
		return fmt.Errorf("%s: %w; is --server the URL of a Flyball server?", doing, err)
	case apierrors.IsUnauthorized(err) && p.started(ctx):
		return fmt.Errorf("%s: the server does not accept the token %s of --token: it has expired, was deleted, or its secret is wrong; make a new one with `flyball token create` on the server",
			doing, p.cfg.Token.ID)
	case apierrors.IsUnauthorized(err) && p.anybody != nil:
		return fmt.Errorf("%s: the server at %s does not know its tokens: it has not finished starting within %s; try again once `flyball status` there shows every part up",
			doing, server, p.cfg.patience)
	case starting(err):
		return fmt.Errorf("%s: for %s %s has answered: %w; try again once `flyball status` there shows every part up; if it does, is --server a Flyball server of this version?",
			doing, p.cfg.patience, server, err)
	case apierrors.ReasonForError(err) != "":
		return fmt.Errorf("%s: %w", doing, err)
	}
	return unreachable(server, err, p.cfg.answer, time.Now())
}
