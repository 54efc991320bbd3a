package containers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	podshelper "k8s.io/kubernetes/pkg/apis/core/pods"
	v1helper "k8s.io/kubernetes/pkg/apis/core/v1/helper"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/pkg/kubelet/envvars"
	envfile "k8s.io/kubernetes/pkg/kubelet/util/env"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/volumes"
)

// EnvSources are the sources of values that are not in the Pod.
type EnvSources struct {
	// Objects gives ConfigMaps and Secrets; *volumes.Manager is one.
	Objects volumes.Source
	// Services returns the Services of a namespace. It waits until they have been listed once, or
	// fails: a Pod without KUBERNETES_SERVICE_HOST is broken.
	Services func(ctx context.Context, namespace string) ([]*v1.Service, error)
}

// Environment resolves the environment of a container: envFrom, env as declared, Service variables,
// in this order. It reads Node, Pod, Container, PodIPs and Volumes of in. Errors are *Error.
func Environment(ctx context.Context, src EnvSources, in Input) ([]*runtimeapi.KeyValue, error) {
	services, err := serviceVariables(ctx, src, in.Pod)
	if err != nil {
		return nil, configError(err)
	}
	values, order := map[string]string{}, []string{} // the names in the order in which they were first set
	set := func(name, value string) {
		if _, ok := values[name]; !ok {
			order = append(order, name)
		}
		values[name] = value
	}
	for _, from := range in.Container.EnvFrom {
		data, err := src.dataFrom(ctx, in.Pod.Namespace, from)
		if err != nil {
			return nil, configError(err)
		}
		for _, k := range slices.Sorted(maps.Keys(data)) {
			set(from.Prefix+k, data[k])
		}
	}
	expand := expansion.MappingFuncFor(values, services)
	for _, e := range in.Container.Env {
		value, ok := "", true
		if e.Value != "" {
			value = expansion.Expand(e.Value, expand)
		} else if e.ValueFrom != nil {
			if value, ok, err = resolve(ctx, src, in, e.ValueFrom); err != nil {
				return nil, configError(err)
			}
		}
		if ok {
			set(e.Name, value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if _, declared := values[name]; !declared {
			set(name, services[name])
		}
	}
	return lo.Map(order, func(name string, _ int) *runtimeapi.KeyValue {
		return &runtimeapi.KeyValue{Key: name, Value: []byte(values[name])}
	}), nil
}

func (src EnvSources) dataFrom(ctx context.Context, ns string, from v1.EnvFromSource) (map[string]string, error) {
	switch {
	case from.ConfigMapRef != nil:
		return src.configMap(ctx, ns, from.ConfigMapRef.Name, from.ConfigMapRef.Optional)
	case from.SecretRef != nil:
		return src.secret(ctx, ns, from.SecretRef.Name, from.SecretRef.Optional)
	}
	return nil, nil
}

// configMap and secret return no data if an optional object is missing.
func (src EnvSources) configMap(ctx context.Context, ns, name string, optional *bool) (map[string]string, error) {
	cm, err := src.Objects.ConfigMap(ctx, ns, name)
	if err != nil {
		return nil, unlessAbsent(err, optional)
	}
	return cm.Data, nil
}

func (src EnvSources) secret(ctx context.Context, ns, name string, optional *bool) (map[string]string, error) {
	s, err := src.Objects.Secret(ctx, ns, name)
	if err != nil {
		return nil, unlessAbsent(err, optional)
	}
	return lo.MapValues(s.Data, func(value []byte, _ string) string { return string(value) }), nil
}

func unlessAbsent(err error, optional *bool) error {
	if apierrors.IsNotFound(err) && ptr.Deref(optional, false) {
		return nil
	}
	return err
}

// resolve returns the value of a reference; ok is false if an optional one is missing.
func resolve(ctx context.Context, src EnvSources, in Input, from *v1.EnvVarSource) (value string, ok bool, err error) {
	ns := in.Pod.Namespace
	switch {
	case from.FieldRef != nil:
		value, err = fieldValue(in, from.FieldRef)
		return value, err == nil, err
	case from.ResourceFieldRef != nil:
		value, err = volumes.ResourceValue(in.Pod, in.Container, from.ResourceFieldRef, in.Node.Allocatable)
		return value, err == nil, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		data, err := src.configMap(ctx, ns, ref.Name, ref.Optional)
		return keyOf(data, err, "ConfigMap", ns+"/"+ref.Name, ref.Key, ref.Optional)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		data, err := src.secret(ctx, ns, ref.Name, ref.Optional)
		return keyOf(data, err, "Secret", ns+"/"+ref.Name, ref.Key, ref.Optional)
	case from.FileKeyRef != nil:
		return fileValue(in, from.FileKeyRef)
	}
	return "", true, nil
}

func keyOf(data map[string]string, err error, kind, object, key string, optional *bool) (string, bool, error) {
	value, ok := data[key]
	if err == nil && !ok && !ptr.Deref(optional, false) {
		err = fmt.Errorf("couldn't find key %v in %s %s", key, kind, object)
	}
	return value, ok, err
}

func fileValue(in Input, ref *v1.FileKeySelector) (value string, ok bool, err error) {
	vol, ok := in.Volumes[ref.VolumeName]
	if !ok {
		return "", false, fmt.Errorf("cannot find the volume %q referenced by FileKeyRef", ref.VolumeName)
	}
	// A container wrote the file: its links must not lead out of the volume.
	file, err := securejoin.SecureJoin(vol.HostPath, ref.Path)
	if err != nil {
		return "", false, fmt.Errorf("resolving file %q of volume %q: %w", ref.Path, ref.VolumeName, err)
	}
	if value, err = envfile.ParseEnv(file, ref.Key); err != nil {
		return "", false, fmt.Errorf("couldn't parse env file")
	}
	if value == "" && !ptr.Deref(ref.Optional, false) {
		return "", false, fmt.Errorf("environment variable key %q not found in file %q", ref.Key, ref.Path)
	}
	return value, value != "", nil
}

func fieldValue(in Input, ref *v1.ObjectFieldSelector) (string, error) {
	field, _, err := podshelper.ConvertDownwardAPIFieldLabel(ref.APIVersion, ref.FieldPath, "")
	if err != nil {
		return "", err
	}
	switch field {
	case "spec.nodeName":
		return in.Pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return in.Pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return lo.FirstOrEmpty(in.Node.IPs), nil
	case "status.hostIPs":
		return strings.Join(in.Node.IPs, ","), nil
	case "status.podIP":
		return lo.FirstOrEmpty(in.PodIPs), nil
	case "status.podIPs":
		return strings.Join(in.PodIPs, ","), nil
	}
	return fieldpath.ExtractFieldPathAsString(in.Pod, field)
}

// serviceVariables are those of the Service kubernetes and, unless enableServiceLinks is false,
// those of the Services in the Pod's namespace.
func serviceVariables(ctx context.Context, src EnvSources, pod *v1.Pod) (map[string]string, error) {
	selected, err := servicesWithIP(ctx, src, metav1.NamespaceDefault)
	if err != nil {
		return nil, err
	}
	selected = lo.PickByKeys(selected, []string{"kubernetes"})
	if ptr.Deref(pod.Spec.EnableServiceLinks, true) {
		own, err := servicesWithIP(ctx, src, pod.Namespace)
		if err != nil {
			return nil, err
		}
		maps.Copy(selected, own)
	}
	vars := envvars.FromServices(slices.Collect(maps.Values(selected)))
	return lo.SliceToMap(vars, func(v v1.EnvVar) (string, string) { return v.Name, v.Value }), nil
}

// servicesWithIP returns the Services of a namespace that have an address, by name.
func servicesWithIP(ctx context.Context, src EnvSources, namespace string) (map[string]*v1.Service, error) {
	services, err := src.Services(ctx, namespace)
	if err != nil {
		return nil, fmt.Errorf("services have not yet been read at least once, cannot construct envvars: %w", err)
	}
	return lo.FilterSliceToMap(services, func(s *v1.Service) (string, *v1.Service, bool) {
		return s.Name, s, v1helper.IsServiceIPSet(s)
	}), nil
}
