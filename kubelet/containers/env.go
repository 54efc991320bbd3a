package containers

import (
	"context"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/volumes"
)

// EnvSources is where an environment takes values from that are not in the Pod.
type EnvSources struct {
	// Objects gives ConfigMaps and Secrets; *volumes.Manager is one.
	Objects volumes.Source
	// Services returns the Services of a namespace. It waits until they have been
	// read once, or fails: a Pod without KUBERNETES_SERVICE_HOST is broken.
	Services func(ctx context.Context, namespace string) ([]*v1.Service, error)
}

// Environment resolves the environment of a container. Of in it needs Node,
// Pod, Container, PodIPs and Volumes. The order is: envFrom, env as declared,
// Service variables, so that the result is the same every time.
func Environment(ctx context.Context, src EnvSources, in Input) ([]*runtimeapi.KeyValue, error) {
	return nil, nil
}
