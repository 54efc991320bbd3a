package controlplane

import (
	"bytes"
	"context"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"text/template"
	"time"

	"github.com/samber/lo"
	"golang.org/x/sync/errgroup"
	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"flyball.dev/internal/kubeconfig"
)

const fieldManager = "flyball"

// manifests holds the objects that every cluster has beside the caller's manifests. They are
// templates of Config.
//
//go:embed manifests/*.yaml
var manifests embed.FS

// runBootstrap applies all manifests. It is up once they exist and every CustomResourceDefinition
// among them is served. It retries while that fails, since the cause may go away (a webhook that
// does not answer).
func (s *server) runBootstrap(ctx context.Context, up func()) error {
	objects, err := readAll(s.render, manifests)
	if err != nil {
		return err
	}
	callers, err := readAll(plain, s.cfg.Manifests...)
	if err != nil {
		return err
	}
	defaults, err := readAll(plain, s.cfg.Defaults...)
	if err != nil {
		return err
	}
	objects = append(objects, callers...)
	rc, err := kubeconfig.Client(s.cfg.kubeconfig("admin"))
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(rest.AddUserAgent(rc, "bootstrap"))
	if err != nil {
		return fmt.Errorf("connecting to kube-apiserver: %w", err)
	}
	backoff := wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.1, Steps: 10, Cap: 30 * time.Second}
	for {
		err := applyAll(ctx, client, objects)
		if err == nil {
			err = createDefaults(ctx, client, defaults)
		}
		if err == nil {
			up()
			<-ctx.Done()
			return nil
		}
		if ctx.Err() == nil {
			s.cfg.progress(PartBootstrap, StateStarting, err)
			klog.FromContext(ctx).Error(err, "Applying manifests failed, trying again")
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(backoff.Step()):
		}
	}
}

// Apply applies all manifests in from and returns once objects of every CustomResourceDefinition
// among them can be watched.
func Apply(ctx context.Context, rc *rest.Config, from []fs.FS) error {
	objects, err := readAll(plain, from...)
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(rest.AddUserAgent(rc, "bootstrap"))
	if err != nil {
		return fmt.Errorf("connecting to kube-apiserver: %w", err)
	}
	if err := applyAll(ctx, client, objects); err != nil {
		return err
	}
	for _, o := range objects {
		if o.GetKind() != "CustomResourceDefinition" {
			continue
		}
		// A definition is established a moment before its cache is filled. Until then, watches are
		// refused for a second.
		crd := typed(o).Spec
		for _, v := range crd.Versions {
			path := fmt.Sprintf("/apis/%s/%s/%s?limit=1&resourceVersion=0", crd.Group, v.Name, crd.Names.Plural)
			if !v.Served {
				continue
			}
			if err := waitOK(ctx, rc, path); err != nil {
				return err
			}
		}
	}
	return nil
}

// plain is for manifests that are not templates.
func plain(manifest []byte) ([]byte, error) { return manifest, nil }

// readAll reads all manifests, except for kustomizations, each after prepare.
func readAll(prepare func([]byte) ([]byte, error), all ...fs.FS) (objects []*unstructured.Unstructured, err error) {
	for _, from := range all {
		if err := fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || path.Ext(name) != ".yaml" || strings.HasPrefix(path.Base(name), "kustomiz") {
				return err
			}
			data, err := fs.ReadFile(from, name)
			if err == nil {
				data, err = prepare(data)
			}
			if err == nil {
				objects, err = decode(objects, data)
			}
			if err != nil {
				return fmt.Errorf("reading the manifest %s: %w", name, err)
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return objects, nil
}

func (s *server) render(manifest []byte) ([]byte, error) {
	t, err := template.New("").Option("missingkey=error").Parse(string(manifest))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	cfg := s.cfg
	err = t.Execute(&b, map[string]any{
		"ClusterCIDRs": commas(cfg.ClusterCIDRs), "ServiceCIDRs": commas(cfg.ServiceCIDRs), "ClusterDNS": commas(cfg.ClusterDNS),
		"FirstDNS": cfg.ClusterDNS[0], "ClusterDomain": cfg.ClusterDomain,
		"Server": cfg.URL(), "CA": base64.StdEncoding.EncodeToString(s.creds.ca.PEM),
		"UserKubeletClient": userKubeletClient, "UserDNS": userDNS, "UserApprover": userApprover,
	})
	return b.Bytes(), err
}

func decode(objects []*unstructured.Unstructured, data []byte) ([]*unstructured.Unstructured, error) {
	for d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096); ; {
		o := &unstructured.Unstructured{}
		err := d.Decode(&o.Object)
		switch {
		case errors.Is(err, io.EOF):
			return objects, nil
		case err != nil:
			return nil, err
		case len(o.Object) == 0: // between two separators
		case o.GetKind() == "" || o.GetName() == "":
			return nil, errors.New("an object in it has no kind or no name")
		default:
			objects = append(objects, o)
		}
	}
}

// applyAll applies definitions and namespaces first, then the objects that may need them.
func applyAll(ctx context.Context, client dynamic.Interface, objects []*unstructured.Unstructured) error {
	first, then := lo.FilterReject(objects, func(o *unstructured.Unstructured, _ int) bool {
		return o.GetKind() == "CustomResourceDefinition" || o.GetKind() == "Namespace"
	})
	for _, stage := range [][]*unstructured.Unstructured{first, then} {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(bootstrapParallelism)
		for _, o := range stage {
			g.Go(func() error { return apply(ctx, client, o) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func apply(ctx context.Context, client dynamic.Interface, o *unstructured.Unstructured) error {
	resource := resourceOf(client, o)
	if theirs, err := belongsToOthers(ctx, resource, o); err != nil || theirs {
		return err
	}
	got, err := resource.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if err != nil {
		return fmt.Errorf("applying %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	if o.GetKind() == "CustomResourceDefinition" {
		return waitEstablished(ctx, resource, got)
	}
	return nil
}

// resourceOf returns the client of an object's kind. The plural is guessed by English grammar, which
// all kinds follow that a cluster starts with: discovery is the most expensive request there is.
func resourceOf(client dynamic.Interface, o *unstructured.Unstructured) dynamic.ResourceInterface {
	gvr, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
	return client.Resource(gvr).Namespace(o.GetNamespace()) // "" for a kind without namespaces
}

func waitEstablished(ctx context.Context, resource dynamic.ResourceInterface, crd *unstructured.Unstructured) error {
	if established(crd) {
		return nil
	}
	w, err := resource.Watch(ctx, metav1.ListOptions{
		ResourceVersion: crd.GetResourceVersion(),
		FieldSelector:   fields.OneTermEqualSelector("metadata.name", crd.GetName()).String(),
	})
	if err != nil {
		return fmt.Errorf("watching CustomResourceDefinition %s: %w", crd.GetName(), err)
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		if o, ok := event.Object.(*unstructured.Unstructured); !ok {
			return fmt.Errorf("watching CustomResourceDefinition %s: %w", crd.GetName(), apierrors.FromObject(event.Object))
		} else if established(o) {
			return nil
		}
	}
	return fmt.Errorf("waiting for CustomResourceDefinition %s to be established: the watch ended", crd.GetName())
}

func established(o *unstructured.Unstructured) bool {
	crd := typed(o)
	return apihelpers.IsCRDConditionTrue(&crd, apiextensionsv1.Established)
}

func typed(o *unstructured.Unstructured) (crd apiextensionsv1.CustomResourceDefinition) {
	_ = runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &crd) // kube-apiserver refuses another form
	return crd
}
