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
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
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
	if err != nil {
		return fmt.Errorf("configuring kube-apiserver: %w", err)
	}
	if err := errors.Join(completed.Validate()...); err != nil {
		return fmt.Errorf("configuring kube-apiserver: %w", err)
	}
	name, err := cache.NewInformerName(PartAPIServer)
	if err != nil {
		return fmt.Errorf("configuring kube-apiserver: %w", err)
	}
	defer name.Release()
	completed.InformerName = name
	config, err := app.NewConfig(completed)
	if err != nil {
		return fmt.Errorf("configuring kube-apiserver: %w", err)
	}
	prepared, err := s.build(config)
	if err != nil {
		return err
	}
	if err := prepared.Run(ctx); err != nil {
		return fmt.Errorf("running kube-apiserver: %w", err)
	}
	return nil
}

type runnable interface {
	Run(ctx context.Context) error
}

// build makes the chain of servers, with our hooks in place of two of upstream's.
func (s APIServer) build(config *app.Config) (runnable, error) {
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
	prepared, err := server.PrepareRun()
	if err != nil {
		return nil, fmt.Errorf("preparing kube-apiserver: %w", err)
	}
	return prepared, nil
}

// replaceHooks switches off two hooks that begin with a pause of one second and then create their
// objects one after the other. It returns hooks of the same names without the pause, which create
// in parallel. They go to the outermost server of the chain.
func replaceHooks(config *app.Config) map[string]genericapiserver.PostStartHookFunc {
	inner, outer := config.KubeAPIs.ControlPlane.Generic, &config.Aggregator.GenericConfig.Config
	outer.DisabledPostStartHooks = outer.DisabledPostStartHooks.Clone() // the inner server has the same map
	hooks := map[string]genericapiserver.PostStartHookFunc{}
	for _, hook := range []struct {
		name  string
		group schema.GroupVersion
		run   genericapiserver.PostStartHookFunc
	}{
		{rbacrest.PostStartHookName, rbacv1.SchemeGroupVersion, ensureRoles},
		{schedulingrest.PostStartHookName, schedulingv1.SchemeGroupVersion, ensurePriorityClasses},
	} {
		if inner.DisabledPostStartHooks.Has(hook.name) || !config.KubeAPIs.ControlPlane.APIResourceConfigSource.AnyResourceForGroupEnabled(hook.group.Group) {
			continue // the hook or the whole group is switched off
		}
		inner.DisabledPostStartHooks.Insert(hook.name)
		hooks[hook.name] = hook.run
	}
	return hooks
}
