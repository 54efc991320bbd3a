package containers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
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

// Environment resolves the environment of a container: envFrom, env as declared, Service variables, in
// this order. It reads Node, Pod, Container, PodIPs and Volumes of in. Errors are *Error.
func Environment(ctx context.Context, src EnvSources, in Input) ([]*runtimeapi.KeyValue, error) {
	services, err := serviceVariables(ctx, src, in.Pod)
	if err != nil {
		return nil, configError(err)
	}
	env := &environment{values: map[string]string{}}
	for _, from := range in.Container.EnvFrom {
		if err := env.addFrom(ctx, src.Objects, in.Pod.Namespace, from); err != nil {
			return nil, configError(err)
		}
	}
	expand := expansion.MappingFuncFor(env.values, services)
	for _, e := range in.Container.Env {
		value, ok := "", true
		if e.Value != "" {
			value = expansion.Expand(e.Value, expand)
		} else if e.ValueFrom != nil {
			if value, ok, err = resolve(ctx, src.Objects, in, e.ValueFrom); err != nil {
				return nil, configError(err)
			}
		}
		if ok {
			env.set(e.Name, value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if _, declared := env.values[name]; !declared {
			env.set(name, services[name])
		}
	}
	return env.list(), nil
}

// environment is a map with the order in which names were first set.
type environment struct {
	values map[string]string
	order  []string
}

func (e *environment) set(name, value string) {
	if _, ok := e.values[name]; !ok {
		e.order = append(e.order, name)
	}
	e.values[name] = value
}

func (e *environment) list() []*runtimeapi.KeyValue {
	var out []*runtimeapi.KeyValue
	for _, name := range e.order {
		out = append(out, &runtimeapi.KeyValue{Key: name, Value: []byte(e.values[name])})
	}
	return out
}

func (e *environment) addFrom(ctx context.Context, objects volumes.Source, namespace string, from v1.EnvFromSource) error {
	switch {
	case from.ConfigMapRef != nil:
		cm, err := objects.ConfigMap(ctx, namespace, from.ConfigMapRef.Name)
		if absent(err, from.ConfigMapRef.Optional) {
			return nil
		} else if err != nil {
			return err
		}
		for _, k := range slices.Sorted(maps.Keys(cm.Data)) {
			e.set(from.Prefix+k, cm.Data[k])
		}
	case from.SecretRef != nil:
		s, err := objects.Secret(ctx, namespace, from.SecretRef.Name)
		if absent(err, from.SecretRef.Optional) {
			return nil
		} else if err != nil {
			return err
		}
		for _, k := range slices.Sorted(maps.Keys(s.Data)) {
			e.set(from.Prefix+k, string(s.Data[k]))
		}
	}
	return nil
}

// resolve returns the value of a reference; ok is false if an optional one is missing.
func resolve(ctx context.Context, objects volumes.Source, in Input, from *v1.EnvVarSource) (value string, ok bool, err error) {
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
		cm, err := objects.ConfigMap(ctx, ns, ref.Name)
		if err != nil {
			return "", false, unlessAbsent(err, ref.Optional)
		}
		value, ok = cm.Data[ref.Key]
		if !ok && !ptr.Deref(ref.Optional, false) {
			return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", ref.Key, ns, ref.Name)
		}
		return value, ok, nil
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		s, err := objects.Secret(ctx, ns, ref.Name)
		if err != nil {
			return "", false, unlessAbsent(err, ref.Optional)
		}
		raw, ok := s.Data[ref.Key]
		if !ok && !ptr.Deref(ref.Optional, false) {
			return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", ref.Key, ns, ref.Name)
		}
		return string(raw), ok, nil
	case from.FileKeyRef != nil:
		return fileValue(in, from.FileKeyRef)
	}
	return "", true, nil
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
	var hostIPs []string
	for _, ip := range in.Node.IPs {
		hostIPs = append(hostIPs, ip.String())
	}
	switch field {
	case "spec.nodeName":
		return in.Pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return in.Pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(hostIPs), nil
	case "status.hostIPs":
		return strings.Join(hostIPs, ","), nil
	case "status.podIP":
		return first(in.PodIPs), nil
	case "status.podIPs":
		return strings.Join(in.PodIPs, ","), nil
	}
	return fieldpath.ExtractFieldPathAsString(in.Pod, field)
}

// serviceVariables are those of the Service kubernetes and, unless enableServiceLinks is false, those
// of the Services in the Pod's namespace.
func serviceVariables(ctx context.Context, src EnvSources, pod *v1.Pod) (map[string]string, error) {
	selected := map[string]*v1.Service{}
	if ptr.Deref(pod.Spec.EnableServiceLinks, true) {
		services, err := src.Services(ctx, pod.Namespace)
		if err != nil {
			return nil, fmt.Errorf("services have not yet been read at least once, cannot construct envvars: %w", err)
		}
		for _, s := range services {
			if v1helper.IsServiceIPSet(s) {
				selected[s.Name] = s
			}
		}
	}
	const apiServer = "kubernetes"
	defaults, err := src.Services(ctx, metav1.NamespaceDefault)
	if err != nil {
		return nil, fmt.Errorf("services have not yet been read at least once, cannot construct envvars: %w", err)
	}
	for _, s := range defaults {
		if s.Name == apiServer && v1helper.IsServiceIPSet(s) && selected[apiServer] == nil {
			selected[apiServer] = s
		}
	}
	vars := map[string]string{}
	for _, v := range envvars.FromServices(slices.Collect(maps.Values(selected))) {
		vars[v.Name] = v.Value
	}
	return vars, nil
}

func absent(err error, optional *bool) bool {
	return apierrors.IsNotFound(err) && ptr.Deref(optional, false)
}

func unlessAbsent(err error, optional *bool) error {
	if absent(err, optional) {
		return nil
	}
	return err
}

func first(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}
