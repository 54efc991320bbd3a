package flyballtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

const (
	// restoreTimeout is how long a checkpoint or a restore may take on a busy host.
	restoreTimeout = time.Minute
	// deletionTimeout is how long a restore waits for a CRD to remove its objects.
	deletionTimeout = 2 * time.Second
	// maxReads is how many kinds are read at a time.
	maxReads = 16
)

// Paths of the API server (controlplane/programs).
const (
	checkpointPath = "/flyball/checkpoint"
	restorePath    = "/flyball/restore"
)

var crds = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// Checkpoint is the state of all objects in a cluster at one moment. It holds no resources and need
// not be closed.
type Checkpoint struct {
	cluster  *Cluster
	revision int64
}

// Checkpoint records the present state of the cluster. It takes some milliseconds and interrupts
// nothing. Controllers that have not finished their work continue it after each restore, so wait
// first until the cluster has the state for the tests.
func (c *Cluster) Checkpoint() (*Checkpoint, error) {
	ctx, cancel := restoreContext()
	defer cancel()
	revision, err := c.post(ctx, checkpointPath)
	if err != nil {
		return nil, fmt.Errorf("taking a checkpoint: %w", err)
	}
	if c.options.controllers {
		if err := c.startStandby(); err != nil {
			return nil, fmt.Errorf("taking a checkpoint: %w", err)
		}
	}
	return &Checkpoint{cluster: c, revision: revision}, nil
}

// Restore restores a checkpoint of the whole cluster, including one that is older than another
// restored one. When it returns, reads and new watches see that state, and the controllers have
// restarted without memory of later states. Resource versions still grow, and open watches get
// ordinary events for objects that are deleted, restored or changed.
//
// Write requests of other clients wait meanwhile. Stop controllers of the test itself, for example
// in a manager, before and start them afterwards, since they act on what they remember. Conversion
// webhooks need not serve meanwhile.
//
// The Leases of nodes stay as they are. A Pod that was deleted since the checkpoint starts again on
// its simulated node, with new containers. Expired Events exist again.
func (c *Cluster) Restore(checkpoint *Checkpoint) error {
	if checkpoint == nil || checkpoint.cluster != c {
		return errors.New("restoring a checkpoint: it is not one of this cluster")
	}
	ctx, cancel := restoreContext()
	defer cancel()
	if err := c.restore(ctx, checkpoint.revision); err != nil {
		return fmt.Errorf("restoring a checkpoint: %w", err)
	}
	return nil
}

func restoreContext() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), restoreTimeout, fmt.Errorf("it took longer than %s", restoreTimeout))
}

func (c *Cluster) restore(ctx context.Context, revision int64) error {
	config := c.Config()
	config.WarningHandler = rest.NoWarnings{} // it reads kinds that the test did not choose
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("connecting to the cluster: %w", err)
	}
	before, err := c.settledCRDs(ctx, client)
	if err != nil {
		return err
	}
	if err := c.stopControllers(); err != nil {
		return err
	}
	_, err = c.post(ctx, restorePath+fmt.Sprintf("?revision=%d", revision))
	g, ctx := errgroup.WithContext(ctx)
	if c.options.controllers {
		g.Go(func() error { return c.startControllers(ctx) }) // also after an error, for debugging
	}
	if err == nil {
		g.Go(func() error { return c.visible(ctx, client, before) })
	}
	if err = errors.Join(err, g.Wait()); err != nil || !c.options.controllers {
		return err
	}
	return c.startStandby() // for the next restore
}

// stopControllers kills the controllers: all that they know belongs to a state that will not exist
// any more.
func (c *Cluster) stopControllers() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	switch {
	case c.controllers == nil:
		return nil
	case !c.controllers.running():
		return c.controllers.failure() // it should still run
	}
	return c.controllers.kill()
}

// settledCRDs lists the CRDs when none is being deleted: the API server removes the
// objects of such a one in its own process, which nothing can block.
func (c *Cluster) settledCRDs(ctx context.Context, client dynamic.Interface) ([]unstructured.Unstructured, error) {
	for deadline := time.Now().Add(deletionTimeout); ; {
		list, err := client.Resource(crds).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("listing CRDs: %w", err)
		}
		ending := false
		for _, d := range list.Items {
			ending = ending || d.GetDeletionTimestamp() != nil
		}
		if !ending || time.Now().After(deadline) {
			return list.Items, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(servedInterval):
		}
	}
}

// visible returns when all clients see the state in etcd: exactly the defined kinds are served, and
// caches are current.
func (c *Cluster) visible(ctx context.Context, client dynamic.Interface, before []unstructured.Unstructured) error {
	list, err := client.Resource(crds).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing CRDs: %w", err)
	}
	wanted := sets.New[schema.GroupVersionResource]()
	for i := range list.Items {
		if established(&list.Items[i]) {
			wanted.Insert(servedResources(&list.Items[i])...)
		}
	}
	unwanted := sets.New[schema.GroupVersionResource]()
	for i := range before {
		unwanted.Insert(servedResources(&before[i])...)
	}
	d, err := discovery.NewDiscoveryClientForConfig(c.admin)
	if err != nil {
		return fmt.Errorf("connecting to the cluster: %w", err)
	}
	resources, err := settled(ctx, d, wanted, unwanted.Difference(wanted))
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxReads)
	for resource := range resources.Difference(c.unconverted(list.Items)) {
		g.Go(func() error { return readable(ctx, client.Resource(resource), wanted.Has(resource)) })
	}
	return g.Wait()
}

// established reports whether a CRD will be served: its names are accepted, and it is not
// being deleted.
func established(crd *unstructured.Unstructured) bool {
	if crd.GetDeletionTimestamp() != nil {
		return false
	}
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	for _, c := range conditions {
		if condition, ok := c.(map[string]any); ok && condition["type"] == "Established" {
			return condition["status"] == "True"
		}
	}
	return false
}

// probed is a resource whose list probes other processes, and that has no objects in etcd.
const probed = "componentstatuses"

// settled returns all resources that can be listed, once they include all wanted and no unwanted
// ones.
func settled(ctx context.Context, d discovery.DiscoveryInterface, wanted, unwanted sets.Set[schema.GroupVersionResource]) (sets.Set[schema.GroupVersionResource], error) {
	for {
		served := sets.New[schema.GroupVersionResource]()
		lists, err := d.ServerPreferredResources()
		if lists == nil {
			return nil, fmt.Errorf("discovering the kinds that are served: %w", err)
		} // an error together with lists is about a group that is changing
		versions := sets.New[string]()
		for _, list := range lists {
			version, err := schema.ParseGroupVersion(list.GroupVersion)
			if err != nil {
				continue
			}
			versions.Insert(list.GroupVersion)
			for _, r := range list.APIResources {
				if !strings.Contains(r.Name, "/") && r.Name != probed && sets.New(r.Verbs...).Has("list") {
					served.Insert(version.WithResource(r.Name))
				}
			}
		}
		missing := wanted.Difference(served)
		for resource := range missing { // versions that are not preferred
			if list, err := d.ServerResourcesForGroupVersion(resource.GroupVersion().String()); err == nil && contains(list, resource.Resource) {
				missing.Delete(resource)
			}
		}
		if missing.Len() == 0 && served.Intersection(unwanted).Len() == 0 {
			return served.Union(wanted), nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting until the API server serves %v, and %v no longer: %w", missing.UnsortedList(), served.Intersection(unwanted).UnsortedList(), context.Cause(ctx))
		case <-time.After(servedInterval):
		}
	}
}

// readable returns when reads of a resource are current: a list waits for the API server's cache.
func readable(ctx context.Context, resource dynamic.ResourceInterface, custom bool) error {
	for {
		_, err := resource.List(ctx, metav1.ListOptions{Limit: 1})
		switch {
		case err == nil || apierrors.IsMethodNotSupported(err):
			return nil
		case apierrors.IsNotFound(err) && !custom:
			return nil // it was removed meanwhile
		case custom && apierrors.IsStoreReadError(err):
			return nil // no webhook of the test converts it
		case !apierrors.IsNotFound(err) && !apierrors.IsServiceUnavailable(err) && !apierrors.IsTooManyRequests(err):
			return fmt.Errorf("reading the restored state: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("reading the restored state: %w", context.Cause(ctx))
		case <-time.After(servedInterval):
		}
	}
}

// post sends a checkpoint request to the API server, and returns the revision in the response.
func (c *Cluster) post(ctx context.Context, path string) (int64, error) {
	config := c.anonymous()
	config.BearerToken = c.token
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return 0, fmt.Errorf("connecting to the API server: %w", err)
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, config.Host+path, nil)
	if err != nil {
		return 0, fmt.Errorf("posting to the API server: %w", err)
	}
	answer, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("posting to the API server: %w", errors.Join(context.Cause(ctx), err))
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, fmt.Errorf("posting to the API server: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("the API server answers %s: %s", answer.Status, bytes.TrimSpace(body))
	}
	var got struct {
		Revision int64 `json:"revision"`
	}
	if err := json.Unmarshal(body, &got); err != nil || got.Revision == 0 {
		return 0, fmt.Errorf("the API server answers %q, which is not a checkpoint; is it of another version? %w", body, err)
	}
	return got.Revision, nil
}
