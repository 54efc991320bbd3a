package server

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/klog/v2"
)

// How long the API server's answers are cached; upstream's defaults.
const (
	tokenTTL   = 2 * time.Minute
	allowedTTL = 5 * time.Minute
	deniedTTL  = 30 * time.Second
)

// auth authenticates and authorizes callers through the API server.
type auth struct {
	node  string
	authn authenticator.Request
	authz authorizer.UnconditionalAuthorizer
}

func newAuth(cfg Config) (*auth, error) {
	authn, _, err := authenticatorfactory.DelegatingAuthenticatorConfig{
		CacheTTL:                           tokenTTL,
		ClientCertificateCAContentProvider: clientCA{cfg.ClientCA},
		TokenAccessReviewClient:            cfg.Client.AuthenticationV1(),
		WebhookRetryBackoff:                genericoptions.DefaultAuthWebhookRetryBackoff(),
	}.New()
	if err != nil {
		return nil, fmt.Errorf("preparing to authenticate callers: %w", err)
	}
	authz, err := authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: cfg.Client.AuthorizationV1(),
		AllowCacheTTL:             allowedTTL,
		DenyCacheTTL:              deniedTTL,
		WebhookRetryBackoff:       genericoptions.DefaultAuthWebhookRetryBackoff(),
	}.New()
	if err != nil {
		return nil, fmt.Errorf("preparing to authorize callers: %w", err)
	}
	return &auth{node: cfg.NodeName, authn: authn, authz: authz}, nil
}

// require serves only authorized callers. The messages are upstream's: kubectl shows them.
func (a *auth) require(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log := klog.FromContext(r.Context())
		caller, ok, err := a.authn.AuthenticateRequest(r)
		if err != nil {
			log.V(2).Info("Authenticating a caller failed", "remote", r.RemoteAddr, "err", err)
		}
		if err != nil || !ok {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		wanted := attributesOf(a.node, caller.User, r.Method, r.URL.Path)
		for _, attrs := range wanted {
			decision, _, err := a.authz.Authorize(r.Context(), attrs)
			if err != nil {
				log.Error(err, "Authorizing a caller failed", "user", caller.User.GetName(), "path", r.URL.Path)
				http.Error(w, fmt.Sprintf("Authorization error (user=%s, verb=%s, resource=nodes, subresource=%s)",
					caller.User.GetName(), attrs.GetVerb(), attrs.GetSubresource()), http.StatusInternalServerError)
				return
			}
			if decision == authorizer.DecisionAllow {
				next.ServeHTTP(w, r)
				return
			}
		}
		http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=%v)",
			caller.User.GetName(), verbs[r.Method], subresources(r.URL.Path)), http.StatusForbidden)
	})
}

// clientCA is a fixed pool of certificates, as the authenticator needs it.
type clientCA struct{ pool *x509.CertPool }

func (c clientCA) Name() string                               { return "client-ca" }
func (c clientCA) CurrentCABundleContent() []byte             { return nil }
func (c clientCA) AddListener(_ dynamiccertificates.Listener) {}
func (c clientCA) VerifyOptions() (x509.VerifyOptions, bool) {
	return x509.VerifyOptions{Roots: c.pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, c.pool != nil
}
