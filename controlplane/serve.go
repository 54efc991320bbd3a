package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
	schedulingrest "k8s.io/kubernetes/pkg/registry/scheduling/rest"
)

// APIServer is upstream's kube-apiserver, with the caller's options.
type APIServer struct {
	// Options are upstream's, with feature gates set and not yet completed.
	Options *options.ServerRunOptions
	// CloseGrace is how long clients may take to close their connections, once all requests except
	// watches have ended.
	CloseGrace time.Duration
	// Wrap, if not nil, wraps the whole handler of the server. loopback is the server's own client.
	Wrap func(loopback *rest.Config, handler http.Handler) http.Handler
	// WrapAPI, if not nil, wraps the handler of requests that are authorized.
	WrapAPI func(handler http.Handler) http.Handler
}

// Run serves until ctx ends.
func (s APIServer) Run(ctx context.Context) error {
	completed, err := s.Options.Complete(ctx)
	if err == nil {
		err = errors.Join(completed.Validate()...)
	}
	var config *app.Config
	if err == nil {
		completed.InformerName, err = cache.NewInformerName(PartAPIServer)
		defer completed.InformerName.Release()
	}
	if err == nil {
		config, err = app.NewConfig(completed)
	}
	if err != nil {
		return fmt.Errorf("configuring kube-apiserver: %w", err)
	}
	built, err := s.build(config)
	if err != nil {
		return err
	}
	prepared, err := built.PrepareRun()
	if err != nil {
		return fmt.Errorf("preparing kube-apiserver: %w", err)
	}
	if err := prepared.Run(ctx); err != nil {
		return fmt.Errorf("running kube-apiserver: %w", err)
	}
	return nil
}

// build makes the chain of servers, with our hooks in place of two of upstream's.
func (s APIServer) build(config *app.Config) (*aggregator.APIAggregator, error) {
	hooks := replaceHooks(config)
	outer := &config.Aggregator.GenericConfig.Config
	build, loopback := outer.BuildHandlerChainFunc, outer.LoopbackClientConfig
	outer.BuildHandlerChainFunc = func(api http.Handler, c *genericapiserver.Config) http.Handler {
		if s.WrapAPI != nil {
			api = s.WrapAPI(api)
		}
		handler := build(api, c)
		if s.Wrap != nil {
			handler = s.Wrap(loopback, handler)
		}
		return handler
	}
	chain, err := config.Complete()
	if err != nil {
		return nil, fmt.Errorf("configuring kube-apiserver: %w", err)
	}
	server, err := app.CreateServerChain(chain)
	if err != nil {
		return nil, fmt.Errorf("building kube-apiserver: %w", err)
	}
	generic := server.GenericAPIServer
	generic.ShutdownTimeout = s.CloseGrace
	for name, hook := range hooks {
		if err := generic.AddPostStartHook(name, hook); err != nil {
			return nil, fmt.Errorf("building kube-apiserver: %w", err)
		}
	}
	return server, nil
}

// replaceHooks switches off two hooks that begin with a pause of one second and then create their
// objects one after the other. It returns hooks of the same names without the pause, which create
// in parallel. They go to the outermost server of the chain.
func replaceHooks(config *app.Config) map[string]genericapiserver.PostStartHookFunc {
	inner, outer := config.KubeAPIs.ControlPlane.Generic, &config.Aggregator.GenericConfig.Config
	outer.DisabledPostStartHooks = outer.DisabledPostStartHooks.Clone() // the inner server has the same map
	hooks := map[string]genericapiserver.PostStartHookFunc{}
	for _, hook := range []struct {
		name    string
		group   schema.GroupVersion
		creates string
		steps   func(ctx context.Context, client kubernetes.Interface) []func() error
	}{
		{rbacrest.PostStartHookName, rbacv1.SchemeGroupVersion, "the default RBAC roles", defaultRoles},
		{schedulingrest.PostStartHookName, schedulingv1.SchemeGroupVersion, "the system's priority classes", priorityClasses},
	} {
		if inner.DisabledPostStartHooks.Has(hook.name) || !config.KubeAPIs.ControlPlane.APIResourceConfigSource.AnyResourceForGroupEnabled(hook.group.Group) {
			continue // the hook or the whole group is switched off
		}
		inner.DisabledPostStartHooks.Insert(hook.name)
		hooks[hook.name] = func(ctx genericapiserver.PostStartHookContext) error {
			rc := rest.CopyConfig(ctx.LoopbackClientConfig)
			rc.QPS = -1
			client, err := kubernetes.NewForConfig(rc)
			if err == nil {
				err = inParallel(ctx, hook.steps(ctx, client))
			}
			if err != nil {
				return fmt.Errorf("creating %s: %w", hook.creates, err)
			}
			return nil
		}
	}
	return hooks
}
