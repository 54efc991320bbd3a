package flyballtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	sigsyaml "sigs.k8s.io/yaml"
)

const (
	// fieldManager owns the fields that are applied.
	fieldManager = "flyballtest"
	// maxParallel is how many objects of stage 0 or 2 are applied at a time.
	maxParallel = 8
	// servedInterval is the time between two checks which CRDs the API server serves,
	// mappingInterval the time between two discoveries of an object's kind.
	servedInterval  = 10 * time.Millisecond
	mappingInterval = 100 * time.Millisecond
)

const (
	kindCRD               = "CustomResourceDefinition"
	kindMutatingWebhook   = "MutatingWebhookConfiguration"
	kindValidatingWebhook = "ValidatingWebhookConfiguration"
)

// stages has the order in which kinds are applied. All others come in between, in stage 1.
var stages = map[string]int{
	kindCRD: 0, "Namespace": 0,
	kindMutatingWebhook: 2, kindValidatingWebhook: 2,
	"ValidatingAdmissionPolicy": 2, "ValidatingAdmissionPolicyBinding": 2, "MutatingAdmissionPolicy": 2, "MutatingAdmissionPolicyBinding": 2,
}

// object is an object to apply. from names its file and the document's number, for errors.
type object struct {
	*unstructured.Unstructured

	from string
}

// readAll returns the objects of all sources: of o.crds only the CRDs, of o.webhooks only the
// webhook configurations, of o.manifests all. Each CRD of WithConversion must be among them.
func readAll(o *options) (all []object, err error) {
	for _, group := range []struct {
		sources []source
		wanted  func(kind string) bool
	}{
		{o.crds, func(kind string) bool { return kind == kindCRD }},
		{o.manifests, func(string) bool { return true }},
		{o.webhooks, func(kind string) bool { return kind == kindMutatingWebhook || kind == kindValidatingWebhook }},
	} {
		for _, s := range group.sources {
			objects, err := s.read(group.wanted)
			if err != nil {
				return nil, err
			}
			all = append(all, objects...)
		}
	}
	for name := range o.conversions {
		if !slices.ContainsFunc(all, func(o object) bool { return o.GetKind() == kindCRD && o.GetName() == name }) {
			return nil, fmt.Errorf("reading manifests: WithConversion names the CustomResourceDefinition %s, which is in none of them", name)
		}
	}
	return all, nil
}

func (s source) read(wanted func(kind string) bool) (all []object, err error) {
	fsys, root, err := s.open()
	if err != nil {
		return nil, err
	}
	files := 0
	err = fs.WalkDir(fsys, root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !isManifest(file) {
			return err
		}
		files++
		data, err := fs.ReadFile(fsys, file)
		if err != nil {
			return err
		}
		objects, err := decode(s.displayName(file), data, wanted)
		all = append(all, objects...)
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading manifests: %w", err)
	case files == 0:
		return nil, fmt.Errorf("reading manifests: there is no .yaml, .yml or .json file in %s", s.displayName("."))
	}
	return all, nil
}

func isManifest(file string) bool {
	switch path.Ext(file) {
	case ".yaml", ".yml", ".json":
		// kustomization.yaml and kustomizeconfig.yaml are for kustomize, not objects of the API.
		return !strings.HasPrefix(path.Base(file), "kustomiz")
	}
	return false
}

// decode reads the documents of a file. Errors name a document by its number, from 1.
func decode(file string, data []byte, wanted func(kind string) bool) (objects []object, err error) {
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for n := 1; ; n++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		from := fmt.Sprintf("%s, document %d", file, n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
		o := map[string]any{}
		if err := sigsyaml.UnmarshalStrict(document, &o); err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
		if len(o) == 0 { // between two separators, or only comments
			continue
		}
		u := &unstructured.Unstructured{Object: o}
		if u.IsList() {
			return nil, fmt.Errorf("%s: it is a list; write its items as documents of their own", from)
		}
		if u.GetAPIVersion() == "" || u.GetKind() == "" || u.GetName() == "" {
			return nil, fmt.Errorf("%s: apiVersion, kind and metadata.name are required", from)
		}
		if wanted(u.GetKind()) {
			objects = append(objects, object{u, from})
		}
	}
}

// installer has the clients that apply objects and wait for their kinds.
type installer struct {
	client    dynamic.Interface
	discovery discovery.DiscoveryInterface
	mapper    *restmapper.DeferredDiscoveryRESTMapper
}

// install applies all objects, and returns when the CRDs among them are served.
func install(ctx context.Context, config *rest.Config, objects []object) error {
	if len(objects) == 0 {
		return nil
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("connecting to the cluster: %w", err)
	}
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return fmt.Errorf("connecting to the cluster: %w", err)
	}
	i := installer{client: client, discovery: d, mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(d))}
	var staged [3][]object
	for _, o := range objects {
		stage, found := stages[o.GetKind()]
		if !found {
			stage = 1
		}
		staged[stage] = append(staged[stage], o)
	}
	for stage, objects := range staged {
		g, ctx := errgroup.WithContext(ctx)
		limit := maxParallel
		if stage == 1 {
			limit = 1 // an object may need the one before it
		}
		g.SetLimit(limit)
		for _, o := range objects {
			g.Go(func() error { return i.apply(ctx, o) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func (i installer) apply(ctx context.Context, o object) error {
	fail := func(err error) error {
		return fmt.Errorf("applying %s %s (%s): %w", o.GetKind(), o.GetName(), o.from, err)
	}
	mapping, err := i.restMapping(ctx, o.GroupVersionKind())
	if err != nil {
		return fail(err)
	}
	var resource dynamic.ResourceInterface = i.client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		namespace := o.GetNamespace()
		if namespace == "" {
			namespace = metav1.NamespaceDefault
		}
		resource = i.client.Resource(mapping.Resource).Namespace(namespace)
	}
	data, err := json.Marshal(o.Object)
	if err != nil {
		return fail(err)
	}
	options := metav1.PatchOptions{FieldManager: fieldManager, Force: new(true), FieldValidation: metav1.FieldValidationStrict}
	if _, err := resource.Patch(ctx, o.GetName(), types.ApplyPatchType, data, options); err != nil {
		return fail(err)
	}
	if o.GetKind() == kindCRD {
		if err := i.waitServed(ctx, o.Unstructured); err != nil {
			return fail(err)
		}
	}
	return nil
}

// restMapping returns the REST mapping of a kind. A kind that is not served yet gets 5 s.
func (i installer) restMapping(ctx context.Context, kind schema.GroupVersionKind) (*meta.RESTMapping, error) {
	for deadline := time.Now().Add(5 * time.Second); ; {
		mapping, err := i.mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if err == nil {
			return mapping, nil
		}
		if !meta.IsNoMatchError(err) || time.Now().After(deadline) {
			return nil, err
		}
		i.mapper.Reset()
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(mappingInterval):
		}
	}
}

// waitServed returns when discovery lists every served version of a CRD.
func (i installer) waitServed(ctx context.Context, crd *unstructured.Unstructured) error {
	for _, want := range servedResources(crd) {
		for {
			list, err := i.discovery.ServerResourcesForGroupVersion(want.GroupVersion().String())
			if err == nil && contains(list, want.Resource) {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("waiting until %s is served: %w", want, context.Cause(ctx))
			case <-time.After(servedInterval):
			}
		}
	}
	return nil
}

func contains(list *metav1.APIResourceList, resource string) bool {
	return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == resource })
}

// servedResources returns the resource of a CRD in each version that has served: true.
func servedResources(crd *unstructured.Unstructured) (all []schema.GroupVersionResource) {
	group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
	plural, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "plural")
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	for _, v := range versions {
		version, ok := v.(map[string]any)
		if !ok || version["served"] != true {
			continue
		}
		name, _ := version["name"].(string)
		all = append(all, schema.GroupVersionResource{Group: group, Version: name, Resource: plural})
	}
	return all
}
